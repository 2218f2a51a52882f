import pytest
import torch

from avsi.consolidation import blocks
from avsi.consolidation.blocks import Blocks


def tensors(shapes):
    return [torch.rand(shape) for shape in shapes]


MIXED = [(3, 5), (), (1000, 7), (0, 4), (1, 9000), (5, 3, 2, 2), (300,), (130, 64), (77, 65)]


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 512)
    monkeypatch.setattr(blocks, "SMALL", 64)


def cut(divided, tensors):
    return divided.divide(tensors)[1]


def test_every_element_is_there_once_and_changes_reach_the_tensors():
    before = tensors(MIXED)
    changed = [tensor.clone() for tensor in before]
    whole, parts = Blocks(before).divide(changed)
    for tensor in whole + parts:
        tensor.add_(1.0)
    assert all(torch.equal(a + 1, b) for a, b in zip(before, changed, strict=True))
    assert [tensor.shape for tensor in whole] == [(3, 5), (), (0, 4), (5, 3, 2, 2)]


def test_blocks_are_as_small_as_rows_allow():
    parts = cut(Blocks(tensors(MIXED)), tensors(MIXED))
    assert max(block.numel() for block in parts) == 9000  # one row
    assert all(block.numel() <= 512 for block in parts if len(block.shape) != 2 or len(block) > 1)
    assert [len(block) for block in parts if block.shape[1:] == (64,)] == [8] * 16 + [2]


def test_results_in_scratch_memory_are_those_of_whole_tensors_bit_for_bit():
    shapes = [(333, 37), (129, 65), (700, 7), (64, 100)]
    sums, a, b = tensors(shapes), tensors(shapes), tensors(shapes)
    whole = [s.addcmul(x - y, y, value=0.3) for s, x, y in zip(sums, a, b, strict=True)]
    blocks = Blocks(sums)
    for s, x, y, difference in zip(*(cut(blocks, x) for x in (sums, a, b)), blocks.scratch(sums), strict=True):
        torch.sub(x, y, out=difference)
        s.addcmul_(difference, y, value=0.3)
    assert all(torch.equal(x, y) for x, y in zip(whole, sums, strict=True))


def test_scratch_is_one_block_of_each_dtype():
    mixed = [torch.rand(100, 64), torch.rand(3), torch.rand(80), torch.rand(40, 64, dtype=torch.float64)]
    blocks = Blocks(mixed)
    scratch = blocks.scratch(mixed)
    assert [(s.shape, s.dtype) for s in scratch] == [(b.shape, b.dtype) for b in cut(blocks, mixed)]
    memory = {s.untyped_storage().data_ptr(): s.untyped_storage().nbytes() for s in scratch}
    assert sorted(memory.values()) == [512 * 4, 512 * 8]


def test_layouts_that_are_not_contiguous():
    weight = torch.rand(8, 64, 4, 4).to(memory_format=torch.channels_last)
    gradient = torch.rand(4, 64, 4, 8).permute(3, 1, 0, 2)
    expected = weight + gradient
    blocks = Blocks([weight])
    for w, g, s in zip(cut(blocks, [weight]), cut(blocks, [gradient]), blocks.scratch([weight]), strict=True):
        w.copy_(torch.add(w, g, out=s))
    assert len(cut(blocks, [weight])) == 8
    assert torch.equal(weight, expected)
