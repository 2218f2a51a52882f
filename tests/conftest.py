import os

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _few_threads():
    """Bit-for-bit comparisons and small models: more threads gain nothing."""
    torch.set_num_threads(1)


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
