"""Tasks that the tests of penalties train on."""

import pytest
import torch


@pytest.fixture(scope="module")
def tasks(digits):
    """Two tasks of four batches of 64 real images, float64."""
    made = []
    for experience in digits.train_stream[:2]:
        samples = [experience.dataset[i] for i in range(256)]
        x = torch.stack([s[0].flatten() for s in samples]).double()
        y = torch.tensor([s[1] for s in samples])
        made.append(list(zip(x.split(64), y.split(64), strict=True)))
    return made
