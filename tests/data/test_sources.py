"""What single data sets ask for beside what all have in common."""

import io
import subprocess

import numpy as np
import pytest
import scipy.io
import torch

from avsi.data import DataError, load
from avsi.data.sources import NotMnistSource, git_blob_sha1


def test_the_digest_is_gits(tmp_path):
    path = tmp_path / "file"
    for content in (b"", b"what is up, doc?", bytes(range(256)) * 100):
        path.write_bytes(content)
        asked = subprocess.run(
            ["git", "hash-object", "--no-filters", str(path)], capture_output=True, text=True, check=True
        )
        assert git_blob_sha1(path) == asked.stdout.strip()
    path.write_bytes(b"what is up, doc?")
    assert git_blob_sha1(path) == "bd9dbf5aae1a3862dd1526723246b20206e5fc37"


def test_the_published_notmnist_files():
    assert NotMnistSource.files == {
        "train-images-idx3-ubyte.gz": "6cf3076b36bafa7da1563b28bbe863fd78a008a8",
        "train-labels-idx1-ubyte.gz": "285bdaffe3b109c555b8d43ff6fe0373e7b2a3ff",
        "t10k-images-idx3-ubyte.gz": "5d531796d90741366f99a5381569a7aac18e63b0",
        "t10k-labels-idx1-ubyte.gz": "52b510386bbe3ed235d22fdd932b2351a461e835",
    }
    assert "github" in NotMnistSource().address


def test_one_spoilt_file_of_notmnist_is_named_and_the_others_are_kept(publisher, tmp_path):
    spoilt = "notmnist/t10k-images-idx3-ubyte.gz"
    publisher.files[spoilt] = publisher.files["notmnist/train-images-idx3-ubyte.gz"]
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte\.gz came corrupted: its git blob SHA-1 is not"):
        load("notmnist", "train", dataset_root=tmp_path)
    left = {path.name for path in (tmp_path / "notmnist").rglob("*") if path.is_file()}
    assert left == {".lock", "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"}


def test_an_altered_notmnist_file_of_the_user_is_not_taken_for_the_published_one(publisher, archives, tmp_path):
    (first, data), *rest = archives["notmnist"].items()
    given = tmp_path / "notmnist" / "source"
    for path, content in [(first, data[:-1] + bytes([data[-1] ^ 1])), *rest]:
        (given / path).parent.mkdir(parents=True, exist_ok=True)
        (given / path).write_bytes(content)
    with pytest.raises(DataError, match=f"{given / first} is there, but is not what .*wrong checksum"):
        load("notmnist", "train", dataset_root=tmp_path, download=False)
    (given / first).write_bytes(data)
    assert len(load("notmnist", "train", dataset_root=tmp_path, download=False)) == 400
    assert not publisher.requests


def test_svhns_files_are_what_the_publisher_makes(archives):
    """The stand-ins of these tests have the layout of the published train_32x32.mat and test_32x32.mat."""
    content = archives["svhn"]["test_32x32.mat"]
    assert content.startswith(b"MATLAB 5.0 MAT-file")
    held = scipy.io.loadmat(io.BytesIO(content))
    assert (held["X"].shape, held["X"].dtype) == ((32, 32, 3, 100), np.uint8)
    assert (held["y"].shape, held["y"].dtype) == ((100, 1), np.uint8)
    assert set(held["y"].flatten().tolist()) == set(range(1, 11))


def test_svhns_ten_is_the_digit_zero(publisher, archives, tmp_path):
    held = scipy.io.loadmat(io.BytesIO(archives["svhn"]["train_32x32.mat"]))
    svhn = load("svhn", "train", dataset_root=tmp_path)
    assert svhn.labels.tolist() == [0 if y == 10 else y for y in held["y"].flatten().tolist()]
    for n in (0, 57, 399):
        for row, column, channel in ((0, 0, 0), (15, 12, 1), (14, 17, 2)):
            assert svhn.images[n, channel, row, column] == held["X"][row, column, channel, n]
    assert svhn.images.is_contiguous()


# MNIST with background images


def lines(count=30):
    digits = load("digits", "test")
    images = torch.nn.functional.pad(digits.images[:count, 0], (10, 10, 10, 10)).flatten(1)
    return torch.cat([images / 255, digits.labels[:count, None]], dim=1).numpy(), images, digits.labels[:count]


def put(folder, table):
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "test"):
        np.savetxt(folder / f"mnist_background_images_{split}.amat", table, fmt="%.7g")


def test_background_files_are_read(tmp_path):
    table, images, labels = lines()
    put(tmp_path / "mnist_background" / "source", table)
    found = load("mnist_background", "test", dataset_root=tmp_path, download=False)
    assert torch.equal(found.images, images.view(-1, 1, 28, 28))
    assert torch.equal(found.labels, labels)
    assert not found.complete
    assert "number of images" in found.metadata["note"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda table: table[:, 1:], "its lines hold 784 numbers, not 784 pixels and a label"),
        (lambda table: np.where(table == 1, 1.5, table), "its pixels run from 0.0 to 1.5, outside 0 to 1"),
        (lambda table: table + 0.25 * (np.arange(785) == 784), "its labels are not whole numbers"),
        (lambda table: table + 9.0 * (np.arange(785) == 784), "its labels run from 9 to 18, outside 0 to 9"),
    ],
)
def test_background_files_that_are_not_what_they_should_be(spoil, message, tmp_path):
    put(tmp_path / "mnist_background" / "source", spoil(lines()[0]))
    with pytest.raises(DataError, match=f"the train split of 'mnist_background' cannot be made from .*{message}"):
        load("mnist_background", "train", dataset_root=tmp_path)


@pytest.mark.parametrize("download", [True, False])
def test_background_files_are_never_downloaded(download, tmp_path):
    with pytest.raises(DataError) as caught:
        load("mnist_background", "train", dataset_root=tmp_path / "root", download=download)
    message = str(caught.value)
    assert "it is not downloaded, since nothing vouches for its files" in message
    assert "connect to the network" not in message
    assert "mnist_background_images_train.amat, mnist_background_images_test.amat" in message
    assert "--data-root FOLDER" in message
    assert not (tmp_path / "root").exists()
