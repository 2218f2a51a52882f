import dataclasses
import os

import pytest
import torch

from avsi.data import ImageSet, imageset, load, published_counts, store

META = {"name": "mnist", "split": "test", "source": "here", "complete": "true", "note": ""}


@pytest.fixture
def tensors(expected):
    return expected("mnist", "test")


@pytest.fixture
def root(tmp_path, tensors):
    folder = tmp_path / "mnist"
    folder.mkdir()
    store.write(folder / "test.safetensors", folder, *tensors, META)
    return tmp_path


@pytest.fixture
def hashed(monkeypatch):
    """Counts how often pixels are hashed."""
    calls = []
    monkeypatch.setattr(imageset, "_fingerprints", {})
    original = imageset.fingerprint
    monkeypatch.setattr(imageset, "fingerprint", lambda *tensors: calls.append(1) or original(*tensors))
    return calls


def test_fingerprint_depends_on_shapes_pixels_and_labels_alone(tensors):
    images, labels = tensors
    one = ImageSet("mnist", "test", images, labels, {"source": "here", "complete": "true"})
    two = ImageSet("other", "train", images.clone(), labels.clone(), {"source": "there", "complete": "false"})
    assert one.fingerprint() == two.fingerprint()
    assert len(one.fingerprint()) == 64
    # A view with other strides is the same data; a new shape with the same bytes is not.
    strided = images.permute(0, 1, 3, 2).contiguous().permute(0, 1, 3, 2)
    assert dataclasses.replace(one, images=strided).fingerprint() == one.fingerprint()
    assert dataclasses.replace(one, images=images.reshape(-1, 4, 14, 14)).fingerprint() != one.fingerprint()
    for field in ("images", "labels"):
        changed = getattr(one, field).clone()
        changed[3] += 1
        assert dataclasses.replace(one, **{field: changed}).fingerprint() != one.fingerprint()


def test_a_file_is_hashed_once_in_a_process(root, hashed):
    fingerprints = {load("mnist", "test", dataset_root=root).fingerprint() for _ in range(3)}
    assert len(fingerprints) == 1
    assert len(hashed) == 1


def test_a_replaced_file_is_hashed_anew(root, tensors, hashed):
    before = load("mnist", "test", dataset_root=root).fingerprint()
    path = root / "mnist" / "test.safetensors"
    store.write(path, root, 255 - tensors[0], tensors[1], META)
    assert load("mnist", "test", dataset_root=root).fingerprint() != before
    store.write(path, root, *tensors, META | {"source": "elsewhere", "complete": "false"})
    assert load("mnist", "test", dataset_root=root).fingerprint() == before
    assert len(hashed) == 3


def test_tensors_that_were_written_into_do_not_pass_for_the_file(root, hashed):
    written = load("mnist", "test", dataset_root=root)
    written.images[0] = 7
    assert written.fingerprint() != load("mnist", "test", dataset_root=root).fingerprint()
    replaced = load("mnist", "test", dataset_root=root)
    half = dataclasses.replace(replaced, images=replaced.images[:50], labels=replaced.labels[:50])
    assert half.fingerprint() != replaced.fingerprint()


def test_complete_is_what_the_metadata_says_and_the_counts_confirm():
    labels = torch.arange(10).repeat_interleave(torch.tensor(published_counts("mnist", "test")))
    images = torch.zeros(1, 1, 28, 28, dtype=torch.uint8).expand(len(labels), -1, -1, -1)
    whole = ImageSet("mnist", "test", images, labels, {"complete": "true"})
    assert len(whole) == 10_000
    assert whole.complete
    assert not dataclasses.replace(whole, metadata={"complete": "false"}).complete
    assert not dataclasses.replace(whole, images=images[1:], labels=labels[1:]).complete
    assert not dataclasses.replace(whole, split="train").complete


def test_it_is_frozen():
    digits = load("digits", "test")
    with pytest.raises(dataclasses.FrozenInstanceError):
        digits.labels = digits.labels.clone()  # type: ignore[misc]


def test_a_file_key_tells_files_apart_that_differ_in_time_only(root, tensors, hashed):
    path = root / "mnist" / "test.safetensors"
    load("mnist", "test", dataset_root=root).fingerprint()
    os.utime(path, ns=(1, 1))
    load("mnist", "test", dataset_root=root).fingerprint()
    assert len(hashed) == 2


def test_floats_are_told_apart_from_bytes_and_by_their_type():
    labels = torch.zeros(3, dtype=torch.int64)
    images = torch.arange(6, dtype=torch.uint8).view(3, 2)
    found = {ImageSet("mine", "train", x, labels, {}).fingerprint() for x in (images, images.float(), images.double())}
    assert len(found) == 3
    assert ImageSet("mine", "train", images.float() + 1e-3, labels, {}).fingerprint() not in found
