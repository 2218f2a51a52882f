"""Looking at a model without leaving traces: its mode, gradients, buffers and the random state are put back."""

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Hold a model in evaluation mode.

    Args:
        model: The model.

    Yields:
        Nothing; afterwards, also after an error, every submodule is in the mode that it was in.
    """
    modes = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in modes:  # not eval(), which a model may override
            module.training = False
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def kept_random_states() -> Iterator[None]:
    """Put the random states of torch, numpy and Python back.

    Yields:
        Nothing; afterwards, also after an error, the states are as before.
    """
    python_state, numpy_state, cpu_state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda_states = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.set_rng_state(cpu_state)
        for device, state in enumerate(cuda_states):
            torch.cuda.set_rng_state(state, device)


@contextmanager
def undisturbed(model: nn.Module, differentiated: Iterable[nn.Parameter]) -> Iterator[None]:
    """Evaluate and differentiate a model as it stands, then restore all that this changes.

    Inside, every submodule is in evaluation mode, exactly the given parameters require gradients, gradients are
    recorded whatever the caller's grad mode, autocast is off, and attention takes no fused inference path. Afterwards,
    also after an error, training flags, `requires_grad` flags, buffers and the random states of torch, numpy and
    Python are as before.

    Args:
        model: The model.
        differentiated: The parameters with respect to which it will be differentiated.

    Yields:
        Nothing.
    """
    wanted = {id(parameter) for parameter in differentiated}
    requires_grad = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    buffers = [
        (module, name, buffer, buffer._version, buffer.detach().clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    fused_attention = torch.backends.mha.get_fastpath_enabled()
    device_type = next((parameter.device.type for parameter in model.parameters()), "cpu")
    try:
        for parameter, _ in requires_grad:
            parameter.requires_grad_(id(parameter) in wanted)
        torch.backends.mha.set_fastpath_enabled(False)
        plain = torch.autocast(device_type, enabled=False)
        with kept_random_states(), evaluating(model), torch.inference_mode(mode=False), torch.enable_grad(), plain:
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused_attention)
        for parameter, flag in requires_grad:
            parameter.requires_grad_(flag)
        with torch.no_grad():
            for module, name, buffer, version, value in buffers:
                module._buffers[name] = buffer
                if buffer._version != version or not torch.equal(buffer, value):  # .data changes no version
                    buffer.copy_(value)
