import os
import signal

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _few_threads():
    """Bit-for-bit comparisons and small models: more threads gain nothing."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _interruptible():
    """What a script starts in the background ignores Ctrl+C, and so would all that the tests start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def digits():
    """Split digits, real images that need no download."""
    from avsi.scenarios import split_digits

    return split_digits()


@pytest.fixture(scope="session")
def real_data():
    """Folder of prepared real data sets, where there is one."""
    root = os.environ.get("AVSI_DATA")
    if not root:
        pytest.skip("AVSI_DATA names no folder of prepared data sets")
    return root


@pytest.fixture
def experiment():
    """A real experiment that takes about a second a trial."""
    from functools import partial

    from torch.optim import Adam

    from avsi.experiment import Experiment, Reported
    from avsi.experiment.methods import avalanche_si, finetune, joint, scratch, si
    from avsi.models import MLP, MultiHead
    from avsi.scenarios import split_digits

    return Experiment(
        name="tiny",
        title="Tiny",
        source="No paper.",
        scenario=split_digits,
        model=partial(MLP, 64, (16,), MultiHead),
        optimizer=partial(Adam, lr=1e-2),
        epochs=2,
        batch_size=32,
        reset_optimizer=True,
        methods=(
            finetune(),
            si(1.0, damping=1e-3),
            avalanche_si(1.0, damping=1e-3),
            scratch(),
            joint(),
        ),
        paper={"finetune": Reported(90.0, bwt=-0.1, tasks=(80.0, 85.0, 90.0, 95.0, 100.0))},
        trials=2,
    )
