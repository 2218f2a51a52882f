"""The published data sets themselves, where they are prepared."""

import os
import struct

import pytest

from avsi.data import DATASETS, data_root, load, published_counts
from avsi.data.store import prepared_path

ROOT = os.environ.get("AVSI_DATA")


def real(name, split):
    if not ROOT:
        pytest.skip("AVSI_DATA names no folder with prepared files")
    path = prepared_path(data_root(), name, split)
    if not path.exists():
        pytest.skip(f"{path} is not prepared")
    return load(name, split, download=False)


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("name", [name for name in DATASETS if name not in {"digits", "mnist_background"}])
def test_counts_are_the_published_ones_or_the_set_calls_itself_incomplete(name, split):
    images = real(name, split)
    counts, published = images.labels.bincount().tolist(), published_counts(name, split)
    assert len(images) == sum(counts)
    assert images.complete == (tuple(counts) == published)
    assert images.complete == (images.metadata["complete"] == "true")
    if name == "notmnist" and not images.complete:
        assert len(set(counts)) == 1
    else:  # the classes that are there are whole, also in a part of the data set
        assert all(count in {0, whole} for count, whole in zip(counts, published, strict=False))
    assert images.metadata["source"]
    assert 0 == int(images.images[:1000].min()) < 200 < int(images.images[:1000].max())


def test_mnist_from_its_idx_files_is_the_same_to_the_last_bit(tmp_path):
    raw = tmp_path / "mnist" / "source" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for split, prefix in (("train", "train"), ("test", "t10k")):
        mnist = real("mnist", split)
        header = struct.pack(">BBBBIII", 0, 0, 8, 3, len(mnist), 28, 28)
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(header + mnist.images.numpy().tobytes())
        header = struct.pack(">BBBBI", 0, 0, 8, 1, len(mnist))
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(header + bytes(mnist.labels.tolist()))
    for split in ("train", "test"):
        prepared = load("mnist", split, dataset_root=tmp_path, download=False)
        assert prepared.complete
        assert prepared.fingerprint() == real("mnist", split).fingerprint()
