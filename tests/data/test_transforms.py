import copy
import pickle

import numpy as np
import pytest
import torch

from avsi.data import Compose, Normalise, Pad, Permute, RepeatChannels, load
from avsi.data.dataset import scale
from avsi.data.transforms import channel_statistics


@pytest.fixture(scope="module")
def grey():
    return load("digits", "test").images[:20]


@pytest.fixture(scope="module")
def colour(grey):
    """Three channels of real digits, all different."""
    return torch.cat([grey, grey.roll(1, 0), grey.mT], dim=1)


def test_permute_written_out(colour):
    order = torch.from_numpy(np.random.default_rng(0).permutation(64))
    moved = Permute(order)(colour).numpy()
    for n in range(len(colour)):
        for channel in range(3):
            for i in range(64):
                source = int(order[i])
                assert moved[n, channel, i // 8, i % 8] == colour[n, channel, source // 8, source % 8]
    inverse = Permute(torch.argsort(order))
    assert torch.equal(inverse(Permute(order)(colour)), colour)
    assert torch.equal(Permute(order)(colour.float()), Permute(order)(colour).float())


def test_permute_refuses_what_it_cannot_do(grey):
    with pytest.raises(ValueError, match="every number from 0 to 3 once"):
        Permute(torch.tensor([0, 1, 1, 3]))
    with pytest.raises(ValueError, match="images of 8 x 8 pixels, but the permutation is of 4"):
        Permute(torch.arange(4))(grey)


@pytest.mark.parametrize(("height", "width", "top", "left"), [(12, 12, 2, 2), (8, 11, 0, 1), (9, 8, 0, 0)])
def test_pad_written_out(colour, height, width, top, left):
    padded = Pad(height, width)(colour)
    expected = np.zeros((len(colour), 3, height, width), dtype=np.uint8)
    expected[:, :, top : top + 8, left : left + 8] = colour.numpy()
    assert padded.dtype == torch.uint8
    assert np.array_equal(padded.numpy(), expected)


def test_pad_does_not_cut(grey):
    with pytest.raises(ValueError, match="images of 8 x 8 pixels cannot be padded to 8 x 7: choose at least"):
        Pad(8, 7)(grey)


def test_repeat_channels_written_out(grey, colour):
    assert np.array_equal(RepeatChannels(3)(grey).numpy(), np.repeat(grey.numpy(), 3, axis=1))
    assert torch.equal(RepeatChannels(3)(colour), colour)
    with pytest.raises(ValueError, match="images of 3 channels cannot be brought to 4"):
        RepeatChannels(4)(colour)


def test_normalise_written_out(colour):
    mean, std = (0.1, 0.2, 0.3), (0.5, 1.0, 2.0)
    inputs = scale(colour)
    found = Normalise(mean, std)(inputs).numpy()
    expected = (colour.numpy() / np.float32(255) - np.float32(mean)[:, None, None]) / np.float32(std)[:, None, None]
    assert np.allclose(found, expected, atol=1e-6)
    assert torch.equal(inputs, scale(colour)), "the batch that came in is left alone"
    assert Normalise([0.1], [0.5])(inputs.double()).dtype == torch.float64
    with pytest.raises(ValueError, match="must be positive"):
        Normalise([0.0], [0.0])
    with pytest.raises(TypeError, match=r"must be floats, got torch\.uint8"):
        Normalise([0.5], [0.5])(colour)


def test_channel_statistics_are_those_of_the_padded_images(colour):
    mean, std = channel_statistics(colour, 12 * 12)
    padded = Pad(12, 12)(colour).numpy().astype(np.float64) / 255
    assert np.allclose(mean, padded.mean((0, 2, 3)), rtol=1e-12)
    assert np.allclose(std, padded.std((0, 2, 3)), rtol=1e-12)
    mean, std = channel_statistics(colour.repeat(500, 1, 1, 1))  # more than one chunk
    assert np.allclose(mean, colour.numpy().mean((0, 2, 3)) / 255, rtol=1e-12)


def test_channel_statistics_of_floats_are_not_scaled(colour):
    floats = colour.double() * 3 - 100
    mean, std = channel_statistics(floats)
    assert np.allclose(mean, floats.mean((0, 2, 3)), rtol=1e-10)
    assert np.allclose(std, floats.std((0, 2, 3), correction=0), rtol=1e-10)


@pytest.mark.parametrize("images", [torch.zeros(4, 6), torch.zeros(4, 2, 3), torch.zeros(4, 2, 3, 1, 2)])
def test_permute_moves_all_values_but_channels(images):
    images = torch.arange(images.numel()).view(images.shape)
    positions = 6
    order = torch.from_numpy(np.random.default_rng(1).permutation(positions))
    moved = Permute(order)(images).numpy().reshape(4, -1, positions)
    assert np.array_equal(moved, images.numpy().reshape(4, -1, positions)[:, :, order.numpy()])


def test_they_are_one_after_the_other_image_by_image_and_pickled(grey):
    order = torch.arange(64).flip(0)
    steps = Compose(Permute(order), Pad(10, 10), RepeatChannels(3), scale, Normalise((0.5,), (0.25,)))
    expected = np.pad(grey.numpy()[:, :, ::-1, ::-1], ((0, 0), (0, 0), (1, 1), (1, 1))).repeat(3, axis=1)
    found = steps(grey)
    assert np.allclose(found.numpy(), (expected / 255 - 0.5) / 0.25, atol=1e-6)
    assert torch.equal(torch.cat([steps(image[None]) for image in grey]), found)
    for twin in (pickle.loads(pickle.dumps(steps)), copy.deepcopy(steps)):
        assert torch.equal(twin(grey), found)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_they_follow_the_batch_to_a_gpu(grey):
    steps = Compose(Permute(torch.arange(64).flip(0)), RepeatChannels(3), scale, Normalise((0.5,), (0.25,)))
    assert torch.allclose(steps(grey.cuda()).cpu(), steps(grey), atol=1e-6)
    assert len(pickle.dumps(steps)) < 5000


def test_statistics_of_floats_do_not_cancel_and_those_of_padding_count():
    images = torch.randn(5000, 1, 8, 8, dtype=torch.float64)
    shifted = images + 1e8
    assert channel_statistics(shifted)[1][0] == pytest.approx(shifted.std(correction=0).item(), rel=1e-6)
    padded = torch.nn.functional.pad(images + 3, (2, 2, 2, 2))
    mean, std = channel_statistics(images + 3, 12 * 12)
    assert mean[0] == pytest.approx(padded.mean().item())
    assert std[0] == pytest.approx(padded.std(correction=0).item())


def test_repeated_channels_can_be_written_to():
    grey = torch.rand(2, 1, 4, 4)
    repeated = RepeatChannels(3)(grey)
    repeated[:, 0] = 0.0
    assert torch.equal(repeated[:, 2], grey[:, 0])
    colour = torch.rand(2, 3, 4, 4)
    assert RepeatChannels(3)(colour) is colour
