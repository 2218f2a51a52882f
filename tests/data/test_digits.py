import torch
from sklearn.datasets import load_digits

from avsi.data import load, published_counts


def test_split_and_pixels_written_out():
    source = load_digits()
    seen = dict.fromkeys(range(10), 0)
    expected = {"train": [], "test": []}
    for image, label in zip(source.images.tolist(), source.target.tolist(), strict=True):
        split = "test" if seen[label] % 5 == 4 else "train"
        seen[label] += 1
        pixels = [[(int(value) * 255 + 8) // 16 for value in row] for row in image]
        expected[split].append((pixels, label))
    for split, images in expected.items():
        digits = load("digits", split)
        assert digits.images.dtype == torch.uint8
        assert digits.labels.dtype == torch.int64
        assert digits.images.tolist() == [[pixels] for pixels, _ in images]
        assert digits.labels.tolist() == [label for _, label in images]
        assert (int(digits.images.min()), int(digits.images.max())) == (0, 255)


def test_both_splits_are_complete_and_the_same_everywhere():
    train, test = load("digits", "train"), load("digits", "test")
    assert (len(train), len(test)) == (1442, 355)
    assert train.complete
    assert test.complete
    assert train.metadata["source"]
    for digits in (train, test):
        assert tuple(digits.labels.bincount().tolist()) == published_counts("digits", digits.split)
    assert train.fingerprint() == "d1ff15aa7c16ff8ac9aac3127009d9551c4b474b27068afb8dfddeba7ab73393"
    assert test.fingerprint() == "917f911bc846a593b989897b97899e7ff907e2ce2ab80e7879be191e05732fd7"


def test_needs_no_root_and_no_download(monkeypatch, tmp_path):
    root = tmp_path / "nowhere"
    monkeypatch.setenv("AVSI_DATA", str(root))
    assert len(load("digits", "test", download=False)) == 355
    assert not root.exists()


def test_what_one_caller_writes_no_other_sees():
    load("digits", "train").images.zero_()
    assert int(load("digits", "train").images.max()) == 255
