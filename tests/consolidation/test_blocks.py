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


def test_every_element_is_in_one_block_and_changes_reach_the_tensors():
    before = tensors(MIXED)
    changed = [tensor.clone() for tensor in before]
    for block in Blocks(before).cut(changed):
        torch._foreach_add_(block, 1.0)
    assert all(torch.equal(a + 1, b) for a, b in zip(before, changed, strict=True))


def test_blocks_are_as_small_as_rows_allow():
    cut = Blocks(tensors(MIXED)).cut(tensors(MIXED))
    single = max(piece.numel() for block in cut for piece in block)
    assert single == 9000  # one row
    for block in cut:
        assert len(block) == 1 or sum(piece.numel() for piece in block) <= 512
    assert sum(len(block) for block in cut) > len(MIXED)
    rows_of_64 = [piece for block in cut for piece in block if piece.shape[1:] == (64,)]
    assert [len(piece) for piece in rows_of_64] == [8] * 16 + [2]


def test_results_are_those_of_whole_tensors_bit_for_bit():
    shapes = [(333, 37), (129, 65), (700, 7), (64, 100)]
    sums, a, b = tensors(shapes), tensors(shapes), tensors(shapes)
    whole = [s.addcmul(x, y, value=0.3) for s, x, y in zip(sums, a, b, strict=True)]
    cut = Blocks(sums).cut
    for s, x, y in zip(cut(sums), cut(a), cut(b), strict=True):
        torch._foreach_addcmul_(s, x, y, value=0.3)
    assert all(torch.equal(x, y) for x, y in zip(whole, sums, strict=True))


def test_layouts_that_are_not_contiguous():
    weight = torch.rand(8, 64, 4, 4).to(memory_format=torch.channels_last)
    gradient = torch.rand(4, 64, 4, 8).permute(3, 1, 0, 2)
    expected = weight + gradient
    cut = Blocks([weight]).cut
    for w, g in zip(cut([weight]), cut([gradient]), strict=True):
        torch._foreach_add_(w, g)
    assert len(cut([weight])) == 8
    assert torch.equal(weight, expected)
