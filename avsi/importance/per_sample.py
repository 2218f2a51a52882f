"""Sums over samples of phi(per-sample gradient), each parameter by the cheapest method that is exact for it."""

import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call, vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from avsi.importance.closed_forms import Phi, chunks
from avsi.importance.graph import Call, Users, before_routes, recorded, trace
from avsi.importance.layouts import Layout, Seen, find_layout, reaches, reaches_beyond_first, rounding
from avsi.importance.samples import Batch, check_classes, check_outputs
from avsi.importance.uses import Calls, Closed, Key, Use, find_homes, find_uses

CPU_INPUT_BYTES = 2**24
"""Most that a layer's input should take on a CPU. Far larger ones are mapped anew in each pass, which costs a third."""

Cotangents = Callable[[Tensor, Tensor | None], Iterator[Tensor]]
"""(outputs, targets) -> tensors like the outputs, one for each derivative that is taken."""


@dataclass(frozen=True)
class Objective:
    """What is differentiated for each sample, and what is summed.

    Attributes:
        cotangents: (outputs, targets) -> tensors like the outputs, rows being vectors v_n. Each of the tensors
            contributes sum_n phi(J_n^T v_n), with J_n the Jacobian of the outputs for sample n.
        phi: The square or the absolute value.
        targets_are_classes: Whether targets index the outputs.
        needs_classes: Whether outputs are those of a classifier, of two classes at least.
    """

    cotangents: Cotangents
    phi: Phi
    targets_are_classes: bool = False
    needs_classes: bool = False


class PerSampleSums:
    """Running sums of phi(per-sample gradient) over batches.

    Per batch there is one forward pass, and one backward pass per cotangent that stops at the outputs of layers: the
    gradients of these and the layers' inputs are all that the closed forms need. A parameter gets its closed form if
    the graph shows that it entered the outputs once, through the one call of its layer, and if the layer's rows are
    samples; or, outside of layers, by being added to all samples or multiplied with them. All others are differentiated
    sample by sample, vectorised.

    Args:
        model: The model, in the state in which it is to be evaluated.
        parameters: The parameters by name.
        objective: What is differentiated and summed.
        workspace: Bytes for per-sample quantities, at least those of one sample.
    """

    def __init__(
        self, model: nn.Module, parameters: dict[str, nn.Parameter], objective: Objective, workspace: int
    ) -> None:
        self.totals = {name: torch.zeros_like(p, dtype=_precise(p.dtype)) for name, p in parameters.items()}
        self.samples = 0
        self._model = model
        self._parameters = parameters
        self._objective = objective
        self._workspace = workspace
        self._homes = find_homes(model, parameters)
        self._paths = _find_paths(model, parameters)
        self._layers = {home.module: None for home in self._homes.values()}
        self._layouts: dict[int | None, dict[Key, Layout]] = {}  # by task
        self._saved_bytes: dict[int | None, int] = {}  # by task
        self._at_once: dict[int | None, int] = {}  # samples, by task
        self._changes_inputs = False
        self._vectorises = True
        self._replaceable: set[tuple[int | None, str]] = set()  # parameters, by task
        self._reached = False
        self._batches = 0
        self._faults: list[tuple[Tensor, Callable[[], str]]] = []

    def add(self, batch: Batch) -> None:
        """Add the samples of one batch.

        Args:
            batch: Samples of a single task.
        """
        if len(batch.inputs) == 0:
            return
        step = self._samples_at_once(batch)
        for start in range(0, len(batch.inputs), step):
            self._add(batch.part(slice(start, start + step)))
        self._batches += 1

    def _add(self, batch: Batch) -> None:
        known = batch.task_label in self._layouts
        outputs, calls = self._forward(batch, protect=not known)
        self._check(batch, outputs)
        if not known and len(batch.inputs) > 1:
            self._layouts[batch.task_label] = self._probe(batch, outputs, calls)
        self.samples += len(batch.inputs)
        if not outputs.requires_grad:
            return  # none of the parameters belongs to this task
        self._reached = True
        closed, others = self._assign(batch, outputs, calls)
        del calls
        others += self._add_closed(batch, outputs, closed)
        if others:
            self._add_vectorised(batch, outputs.detach(), others)

    def means(self) -> dict[str, Tensor]:
        """Divide by the number of samples.

        Returns:
            The means over samples, by parameter name.

        Raises:
            ValueError: If there were no samples, or something was not finite.
            RuntimeError: If no parameter had an influence on any output.
        """
        if self.samples == 0:
            raise ValueError("batches yielded no samples; note that an iterator can be used only once")
        for fault, message in self._faults:
            if fault:
                raise ValueError(message())
        if not self._reached:
            raise RuntimeError(
                f"none of the parameters {_some(list(self._parameters))} influences the outputs of the model; "
                "does its forward detach, or run under no_grad or inference_mode?"
            )
        means = {name: total.div_(self.samples).to(self._parameters[name].dtype) for name, total in self.totals.items()}
        flags = [mean.isfinite().all() for mean in means.values()]
        finite = torch.stack([flag.to(flags[0].device) for flag in flags]).tolist()  # the device is asked once
        overflown = [name for name, is_finite in zip(means, finite, strict=True) if not is_finite]
        if overflown:
            raise ValueError(
                f"the importance of {_some(overflown)} is not finite although the outputs are: "
                "its gradients overflow or are undefined; try the model in float64"
            )
        return means

    def _raise_if(self, fault: Tensor, message: Callable[[], str]) -> None:
        if fault.device.type != "cpu":
            self._faults.append((fault, message))  # asked at the end: asking now would stall the device
        elif fault:
            raise ValueError(message())

    def _check(self, batch: Batch, outputs: Tensor) -> None:
        where = f"in batch {self._batches}" + (f", task {batch.task_label}" if batch.task is not None else "")
        if self._objective.needs_classes:
            check_classes(outputs, where)
        bad = ~outputs.detach().isfinite().all(1)
        self._raise_if(bad.any(), lambda: f"the model's outputs are not finite for some samples {where}")
        if self._objective.targets_are_classes and batch.targets is not None:
            low, high = batch.targets.aminmax()
            last = outputs.shape[1] - 1
            self._raise_if(
                (low < 0) | (high > last),
                lambda: f"labels must be from 0 to {last}, the model's outputs, got {int(low)} to {int(high)} {where}",
            )

    def _samples_at_once(self, batch: Batch) -> int:
        # On a CPU, so many that the largest input of a layer is of moderate size; on a GPU, all.
        size = len(batch.inputs)
        if batch.inputs.device.type != "cpu" or size == 1:
            return size
        if batch.task_label not in self._at_once:
            few = batch.inputs[:2].clone()
            with torch.no_grad(), recorded(self._layers) as calls:
                batch.call(self._model, few)
            made = [c.inputs for layer in calls.values() for c in layer if c.inputs is not None and _has_rows(c, 2)]
            # What is a view of the data needs no memory of its own.
            own = [a.nbytes // 2 for a in made if a.untyped_storage().data_ptr() != few.untyped_storage().data_ptr()]
            # At least two, because that samples are not mixed shows in two only.
            self._at_once[batch.task_label] = max(2, CPU_INPUT_BYTES // max([1, *own]))
        return self._at_once[batch.task_label]

    def _forward(self, batch: Batch, *, protect: bool) -> tuple[Tensor, Calls]:
        inputs = batch.inputs.clone() if protect or self._changes_inputs else batch.inputs
        version, random_state = inputs._version, _random_state(inputs.device)
        with recorded(self._layers) as calls:
            outputs = batch.call(self._model, inputs)
        self._changes_inputs |= inputs._version != version
        if not torch.equal(random_state, _random_state(inputs.device)):
            raise RuntimeError(
                "the model draws random numbers in evaluation mode (F.dropout without training=self.training?), "
                "so its outputs are no function of a sample"
            )
        return check_outputs(outputs, len(inputs)), calls

    def _probe(self, batch: Batch, outputs: Tensor, calls: Calls) -> dict[Key, Layout]:
        # Finds where samples are, by evaluating a few of them again, repeated if need be; refuses models that mix them.
        size = len(batch.inputs)
        types = {outputs.dtype, *(call.dtype for made in calls.values() for call in made)}
        tolerance = rounding(*(dtype for dtype in types if dtype is not None))
        scale = outputs.detach().abs().max()
        seen: dict[tuple[Key, torch.Size | None], list[Seen]] = {}
        for few in (3, 2) if size == 2 else (2, 3):  # first another number than the batch's own, which shows mixing
            leaf = batch.inputs[torch.arange(few, device=batch.inputs.device) % size]
            differentiable = leaf.is_floating_point()
            inputs = leaf.requires_grad_(differentiable).clone()
            with recorded(self._layers) as few_calls:
                few_outputs = batch.call(self._model, inputs)
            mixed = (few_outputs[0] - outputs[0]).abs().max() > tolerance * scale
            if few_outputs.requires_grad:
                users = trace(few_outputs)
                uses = {key: use for name in self._parameters for key, use in self._uses_of(name, users, few_calls)}
                edges: list[Any] = [use.edge for use in uses.values()]
                cotangent = torch.zeros_like(few_outputs)
                cotangent[0] = torch.linspace(1, 2, few_outputs.shape[1])  # not constant: outputs may have a fixed sum
                wrt = edges + [leaf] * differentiable
                gradients = torch.autograd.grad(few_outputs, wrt, cotangent, allow_unused=True) if wrt else ()
                if differentiable:
                    mixed = mixed | reaches_beyond_first(gradients[-1])
                for (key, use), gradient in zip(uses.items(), gradients, strict=False):
                    seen.setdefault((key, use.shared), []).append((few, gradient, use.rows))
            if mixed:
                raise _mixing(self._find_mixing(batch, inputs))
        # What comes first may be as if it were alone, and still decide what comes after it.
        turned = torch.arange(min(size, 3) - 1, -1, -1, device=batch.inputs.device)
        with torch.no_grad():
            again = batch.call(self._model, batch.inputs[turned].clone())
        if (again - outputs[turned]).abs().max() > tolerance * scale:
            raise _mixing("")
        layouts = {key: find_layout(*pair) for (key, _), pair in seen.items() if len(pair) == 2}
        return {key: layout for key, layout in layouts.items() if layout}

    def _find_mixing(self, batch: Batch, few: Tensor) -> str:
        # Names the first module whose output for the first sample differs between the batch and a few of its samples.
        names = {module: name for name, module in self._model.named_modules() if not next(module.children(), None)}
        with torch.no_grad(), recorded(names, first_rows=True) as few_calls:
            batch.call(self._model, few.detach().clone())
        with torch.no_grad(), recorded(names, first_rows=True) as all_calls:
            batch.call(self._model, batch.inputs.clone())
        for module, (call, *_) in few_calls.items():
            one, other = call.first_row, all_calls[module][0].first_row
            if one is None or other is None or one.shape != other.shape or not one.is_floating_point():
                continue
            if not torch.allclose(one, other, rtol=1e-3, atol=1e-3 * float(other.abs().max())):
                return f" (first seen at {names[module]!r}, a {type(module).__name__})"
        return ""

    def _assign(self, batch: Batch, outputs: Tensor, calls: Calls) -> tuple[Closed, list[str]]:
        # Decides which parameters take their closed form in this batch, and which the general method.
        size = len(batch.inputs)
        layouts = self._layouts.get(batch.task_label, {})
        users = trace(outputs)
        closed: Closed = {}
        of_key: dict[Key, list[str]] = {}
        others = []
        for name, parameter in self._parameters.items():
            for key, use in self._uses_of(name, users, calls):
                alone = Layout(0, "slow" if use.is_movable else "alone")  # one sample has all that there is
                layout = alone if size == 1 else layouts.get(key)
                if layout and use.takes(layout, size):
                    closed.setdefault(key, (use, layout))[0].totals.update(use.totals)
                    of_key.setdefault(key, []).append(name)
                    break
            else:
                if id(parameter) in users:
                    others.append(name)
        for key in self._irregular(outputs, closed, users):
            del closed[key]
            others += of_key[key]
        return closed, others

    def _irregular(self, outputs: Tensor, closed: Closed, users: Users) -> set[Key]:
        # Those of which some samples have more places than others, though the number of all is as the layout would have
        # it. Only where that can be: a full backward pass is made.
        size, routed = len(outputs), before_routes(users)
        unsure = {
            key: (use.edge, layout)
            for key, (use, layout) in closed.items()
            if size > 1
            and (use.edge.node in routed if layout.order == "alone" else not layout.is_seen(users, use.edge.node, size))
        }
        irregular: set[Key] = set()
        for first in (0, 1) if unsure else ():  # every other sample: where places are miscounted, neighbours share some
            cotangent = torch.zeros_like(outputs)
            cotangent[first::2] = torch.linspace(1, 2, outputs.shape[1])
            edges: list[Any] = [edge for edge, _ in unsure.values()]
            gradients = torch.autograd.grad(outputs, edges, cotangent, retain_graph=True)
            for (key, (_, layout)), gradient in zip(unsure.items(), gradients, strict=True):
                if layout.fits(gradient, size) and reaches(layout.samples_first(gradient, size)[1 - first :: 2]):
                    irregular.add(key)
        return irregular

    def _uses_of(self, name: str, users: Users, calls: Calls) -> Iterator[tuple[Key, Use]]:
        return find_uses(name, self._parameters[name], self.totals[name], self._homes.get(name), users, calls)

    def _add_closed(self, batch: Batch, outputs: Tensor, closed: Closed) -> list[str]:
        # Gives back those parameters whose gradients do not have the samples where they should be.
        if not closed:
            return []
        size = len(batch.inputs)
        misfits: set[str] = set()
        edges: list[Any] = [use.edge for use, _ in closed.values()]
        cotangents = self._cotangents(outputs.detach(), batch.targets)
        cotangent = next(cotangents, None)
        held: list[tuple[Tensor, ...]] = []  # what several cotangents share is computed once for all that fit
        while cotangent is not None:
            following = next(cotangents, None)
            held.append(torch.autograd.grad(outputs, edges, cotangent, retain_graph=following is not None))
            if following is None or (len(held) + 1) * sum(gradient.nbytes for gradient in held[0]) > self._workspace:
                gradients = list(zip(*held, strict=True))
                held.clear()
                with torch.no_grad():
                    for key, (use, layout) in reversed(closed.items()):
                        same = gradients.pop()
                        if isinstance(key, str) and not layout.fits(same[0], size):
                            misfits.add(key)
                            continue
                        # Under autocast in the model's forward, activations are coarser than what is summed.
                        total = next(iter(use.totals.values()))
                        inputs, grads = use.arranged([gradient.to(total) for gradient in same], layout, size)
                        inputs = inputs.to(total) if inputs is not None and inputs.is_floating_point() else inputs
                        use.add(use.module, inputs, grads, self._objective.phi, use.totals, self._workspace)
            cotangent = following
        return list(misfits)

    def _cotangents(self, outputs: Tensor, targets: Tensor | None) -> Iterator[Tensor]:
        for cotangent in self._objective.cotangents(outputs.to(_precise(outputs.dtype)), targets):
            yield cotangent.to(outputs.dtype)

    def _add_vectorised(self, batch: Batch, outputs: Tensor, names: list[str]) -> None:
        parameters = {name: self._parameters[name].detach() for name in names}
        part_size = self._bytes_per_sample(batch, outputs, names)
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):  # fused attention has no batching rule
            for part in chunks(len(outputs), part_size, self._workspace):
                targets = batch.targets[part] if batch.targets is not None else None
                cotangents = torch.stack(list(self._cotangents(outputs[part], targets)), dim=1)
                sums = self._sums_by_vmap if self._vectorises else self._sums_by_loop
                for name, total in sums(batch, parameters, batch.inputs[part], cotangents).items():
                    self.totals[name].add_(total)

    def _sums_by_vmap(
        self, batch: Batch, parameters: dict[str, Tensor], inputs: Tensor, cotangents: Tensor
    ) -> dict[str, Tensor]:
        def outputs(values: dict[str, Tensor], row: Tensor) -> Tensor:
            given = {path: values[name] for path, name in self._paths.items() if name in values}
            # Torch's own tying would not put back the weights of a module that has two names.
            call = lambda *args: functional_call(self._model, given, args, tie_weights=False)  # noqa: E731
            return batch.call(call, row.unsqueeze(0).clone()).squeeze(0)

        def of_one_sample(row: Tensor, rows_cotangents: Tensor) -> dict[str, Tensor]:
            pull_back = vjp(partial(outputs, row=row), parameters)[1]
            return self._sum_phi(pull_back(cotangent)[0] for cotangent in rows_cotangents)

        try:
            if not (tried := {(batch.task_label, name) for name in parameters}) <= self._replaceable:
                with torch.enable_grad():
                    users = trace(outputs(parameters, inputs[0]))
                if any(id(self._parameters[name]) in users for name in parameters):
                    raise RuntimeError("a parameter is not taken from its module, but from a list that holds it, say")
                self._replaceable |= tried
            per_sample = vmap(of_one_sample)(inputs, cotangents)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # control flow that depends on the data, operators without a batching rule
            reason = str(error).strip().splitlines()[0]
            warnings.warn(
                f"{type(self._model).__name__} cannot be vectorised over samples, so {_some(list(parameters))} "
                f"take one sample at a time, which is exact but slow. Reason: {reason}",
                stacklevel=2,
            )
            self._vectorises = False
            return self._sums_by_loop(batch, parameters, inputs, cotangents)
        return {name: values.sum(0) for name, values in per_sample.items()}

    def _sums_by_loop(
        self, batch: Batch, parameters: dict[str, Tensor], inputs: Tensor, cotangents: Tensor
    ) -> dict[str, Tensor]:
        wrt = [self._parameters[name] for name in parameters]
        sums: dict[str, Tensor] = {}
        for row in range(len(inputs)):
            with torch.enable_grad():
                outputs = batch.call(self._model, inputs[row : row + 1].clone())
            if not outputs.requires_grad:
                continue  # none of the parameters has to do with this sample
            gradients = (
                torch.autograd.grad(outputs, wrt, v.unsqueeze(0), retain_graph=True, materialize_grads=True)
                for v in cotangents[row]
            )
            contribution = self._sum_phi(dict(zip(parameters, g, strict=True)) for g in gradients)
            sums = {name: value + sums[name] if sums else value for name, value in contribution.items()}
        return sums

    def _sum_phi(self, gradients: Iterable[dict[str, Tensor]]) -> dict[str, Tensor]:
        sums: dict[str, Tensor] = {}
        for gradient in gradients:
            values = {name: self._objective.phi(g.to(self.totals[name].dtype)) for name, g in gradient.items()}
            sums = {name: value + sums[name] if sums else value for name, value in values.items()}
        return sums

    def _bytes_per_sample(self, batch: Batch, outputs: Tensor, names: list[str]) -> int:
        # Estimates what differentiating one sample by itself needs: its gradients, and what the forward pass keeps.
        task = batch.task_label
        if task not in self._saved_bytes:
            weights = {parameter.untyped_storage().data_ptr() for parameter in self._model.parameters()}
            saved = 0

            def count(tensor: Tensor) -> Tensor:
                nonlocal saved
                saved += 0 if tensor.untyped_storage().data_ptr() in weights else tensor.nbytes
                return tensor

            with saved_tensors_hooks(count, lambda tensor: tensor), sdpa_kernel(SDPBackend.MATH):
                batch.call(self._model, batch.inputs[:1].clone())
            self._saved_bytes[task] = saved
        gradients = 2 * sum(self._parameters[name].nbytes for name in names)
        cotangents = 2 * outputs[0].nbytes * outputs.shape[1]  # at most one per class
        return gradients + cotangents + 2 * self._saved_bytes[task]


def _find_paths(model: nn.Module, parameters: dict[str, nn.Parameter]) -> dict[str, str]:
    # The parameters' names, by where they are: once in each module that has them, whatever names that module has.
    names = {id(parameter): name for name, parameter in parameters.items()}
    return {
        f"{path}.{local}" if path else local: names[id(parameter)]
        for path, module in model.named_modules()
        for local, parameter in module._parameters.items()
        if id(parameter) in names
    }


def _precise(dtype: torch.dtype) -> torch.dtype:
    # the type to sum in
    return torch.promote_types(dtype, torch.float32)


def _has_rows(call: Call, samples: int) -> bool:
    return call.inputs is not None and call.inputs.dim() > 0 and len(call.inputs) == samples


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _some(names: list[str]) -> str:
    return ", ".join(map(repr, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _mixing(culprit: str) -> RuntimeError:
    return RuntimeError(
        f"the output for a sample depends on the other samples of its batch{culprit} or on its place among them, "
        "so it has no gradient of its own; replace what mixes samples (batch statistics, or a recurrent layer without "
        "batch_first, say) by something that treats every sample by itself"
    )
