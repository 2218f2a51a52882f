import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file

from avsi.data import DataError, available, imageset, load, store
from avsi.data.dataset import ImageDataset
from avsi.plugins.batches import InMemoryLoader

META = {"name": "mnist", "split": "test", "source": "here", "complete": "false", "note": "a part"}


@pytest.fixture
def path(tmp_path):
    (tmp_path / "mnist").mkdir()
    return tmp_path / "mnist" / "test.safetensors"


@pytest.fixture
def tensors(expected):
    images, labels = expected("mnist", "test")
    return {"images": images, "labels": labels}


def read(path):
    return load("mnist", "test", dataset_root=path.parent.parent, download=False)


def test_a_file_comes_back_as_it_was_written(path, tensors):
    store.write(path, path.parent, **tensors, metadata=META)
    digits = read(path)
    assert (digits.name, digits.split) == ("mnist", "test")
    assert torch.equal(digits.images, tensors["images"])
    assert torch.equal(digits.labels, tensors["labels"])
    assert digits.metadata == {"source": "here", "complete": "false", "note": "a part"}
    assert not digits.complete
    assert os.listdir(path.parent) == ["test.safetensors"]


def test_a_file_has_the_permissions_the_umask_grants(path, tensors):
    umask = os.umask(0o027)
    try:
        store.write(path, path.parent, **tensors, metadata=META)
    finally:
        os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_failing_write_leaves_the_old_file(path, tensors, monkeypatch):
    store.write(path, path.parent, **tensors, metadata=META)
    before = path.read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        store.write(path, path.parent, 255 - tensors["images"], tensors["labels"], META)
    assert path.read_bytes() == before


def mapping(path, address):
    """The fields of /proc/self/smaps for the mapping of `path` that holds `address`."""
    found, fields = False, {}
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if header := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            low, high = (int(end, 16) for end in header.groups())
            found = line.endswith(str(path)) and low <= address < high
        elif found:
            key, _, value = line.partition(":")
            fields[key] = value.split()[0]
    return fields


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux's /proc/self/smaps")
def test_loading_maps_the_file_and_reads_next_to_nothing(path, tensors):
    images, labels = tensors["images"].repeat(200, 1, 1, 1), tensors["labels"].repeat(200)  # 15 MiB
    save_file({"images": images, "labels": labels}, path, metadata=META)
    digits = read(path)
    first = mapping(path, digits.images.data_ptr())
    assert int(first["Size"]) > 15_000
    assert int(first["Rss"]) < 2_000, "the images were read"
    assert int(digits.images.sum()) > 0
    again = read(path)
    second = mapping(path, again.images.data_ptr())
    assert int(mapping(path, digits.images.data_ptr())["Rss"]) > 15_000
    # Reading leaves no private copy of a page: both loads show the system's one copy of the file.
    assert first["Anonymous"] == second["Anonymous"] == "0"
    assert mapping(path, digits.images.data_ptr())["Anonymous"] == "0"


def test_writing_into_a_tensor_reaches_neither_the_file_nor_another_load(path, tensors):
    save_file(tensors, path, metadata=META)
    before = path.read_bytes()
    one, two = read(path), read(path)
    one.images.fill_(9)
    one.labels.fill_(9)
    assert torch.equal(two.images, tensors["images"])
    assert torch.equal(read(path).labels, tensors["labels"])
    assert path.read_bytes() == before


def test_a_load_outlives_the_file_it_came_from(path, tensors):
    store.write(path, path.parent, **tensors, metadata=META)
    old = read(path)
    store.write(path, path.parent, 255 - tensors["images"], tensors["labels"], META)
    assert torch.equal(old.images, tensors["images"])
    path.unlink()
    assert torch.equal(old.images, tensors["images"])


MALFORMED = {
    "float images": (lambda t: t | {"images": t["images"].float()}, {}, "images are torch.float32, not torch.uint8"),
    "int32 labels": (lambda t: t | {"labels": t["labels"].int()}, {}, "labels are torch.int32, not torch.int64"),
    "no channel": (
        lambda t: t | {"images": t["images"][:, 0].contiguous()},
        {},
        r"shape \(100, 28, 28\), not \(N, 1, 28",
    ),
    "other size": (lambda t: t | {"images": t["images"][..., :8].contiguous()}, {}, r"shape \(100, 1, 28, 8\)"),
    "2d labels": (lambda t: t | {"labels": t["labels"][:, None].contiguous()}, {}, r"labels have the shape \(100, 1\)"),
    "lengths": (lambda t: t | {"labels": t["labels"][1:].contiguous()}, {}, "100 images but 99 labels"),
    "empty": (lambda t: {key: value[:0] for key, value in t.items()}, {}, "holds no images"),
    "negative": (lambda t: t | {"labels": t["labels"] - 1}, {}, "labels run from -1 to 8, outside 0 to 9"),
    "too high": (lambda t: t | {"labels": t["labels"] + 1}, {}, "labels run from 1 to 10, outside 0 to 9"),
    "no labels": (lambda t: {"images": t["images"]}, {}, "holds no labels"),
    "other tensors": (lambda t: {"weight": t["labels"]}, {}, "holds no images and no labels"),
    "other name": (lambda t: t, {"name": "fashion_mnist"}, "says name 'fashion_mnist', not 'mnist'"),
    "other split": (lambda t: t, {"split": "train"}, "says split 'train', not 'test'"),
    "no complete": (lambda t: t, {"complete": None}, "says complete None, not 'true' or 'false'"),
    "odd complete": (lambda t: t, {"complete": "yes"}, "says complete 'yes', not 'true' or 'false'"),
    "no metadata": (lambda t: t, dict.fromkeys(META), "says name None"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_file_is_refused(case, path, tensors):
    change, meta, message = MALFORMED[case]
    metadata = {key: value for key, value in (META | meta).items() if value is not None}
    save_file(change(tensors), path, metadata=metadata or None)
    with pytest.raises(DataError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert "Delete it and run again" in str(caught.value)


@pytest.mark.parametrize("length", [0, 1, 7, 8, 100, 400, 5_000, -9, -1])
def test_a_truncated_file_is_refused(length, path, tensors):
    path.write_bytes(save(tensors, metadata=META)[:length])
    with pytest.raises(DataError, match=f"{path} is not a sound prepared file: it cannot be read") as caught:
        read(path)
    assert "Delete it and run again" in str(caught.value)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("garbage", [b"\x00" * 4096, b"\xff" * 4096, b"<html>404</html>" * 99, os.urandom(4096)])
def test_garbage_is_refused(garbage, path):
    path.write_bytes(garbage)
    with pytest.raises(DataError, match="it cannot be read"):
        read(path)


def test_no_damage_to_the_header_is_fatal_in_any_other_way(path, tensors):
    sound = save(tensors, metadata=META)
    generator = torch.Generator().manual_seed(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(sound)
        at = int(torch.randint(0, 330, (), generator=generator))
        damaged[at] = int(torch.randint(0, 256, (), generator=generator))
        path.write_bytes(damaged)
        try:
            read(path)
        except DataError:
            refused += 1
    assert refused > 150


def test_what_is_no_file_is_refused(path):
    path.mkdir()
    with pytest.raises(DataError, match="it cannot be read"):
        read(path)
    path.rmdir()
    path.symlink_to(path.parent / "gone")
    with pytest.raises(DataError, match="it cannot be read"):
        read(path)


# Checksums


@pytest.mark.parametrize("part", ["images", "labels"])
def test_a_flipped_bit_is_noticed_when_the_file_is_first_mapped(part, path, tensors):
    store.write(path, path.parent, **tensors, metadata=META)
    assert "sha256" not in read(path).metadata
    content = bytearray(path.read_bytes())
    needle = tensors[part].numpy().tobytes()
    at = bytes(content).index(needle) + len(needle) // 2
    content[at] ^= 1  # a label stays within 0 to 9
    path.write_bytes(content)
    for _ in range(2):  # not the first time only
        with pytest.raises(DataError, match=r"is not a sound prepared file: .*\(wrong checksum\). Delete it and run"):
            read(path)


def test_the_checksum_is_verified_once_and_is_the_fingerprint(path, tensors, monkeypatch):
    calls = []
    original = imageset.fingerprint
    monkeypatch.setattr(imageset, "fingerprint", lambda *tensors: calls.append(1) or original(*tensors))
    store.write(path, path.parent, **tensors, metadata=META)
    fingerprints = {read(path).fingerprint() for _ in range(3)}
    assert fingerprints == {original(**tensors)}
    assert len(calls) == 1


def test_a_file_without_a_checksum_loads(path, tensors):
    save_file(tensors, path, metadata=META)
    assert torch.equal(read(path).images, tensors["images"])


# What may not be read, or is no file


class Powerless:
    def __enter__(self):
        os.seteuid(65534)

    def __exit__(self, *_):
        os.seteuid(0)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can take on another user's powers")
def test_what_may_not_be_read_is_neither_missing_nor_to_be_deleted(tensors):
    with tempfile.TemporaryDirectory() as root:  # unlike tmp_path, open to every user
        os.chmod(root, 0o755)
        folder = Path(root) / "mnist"
        folder.mkdir()
        store.write(folder / "test.safetensors", folder, **tensors, metadata=META)
        for locked in (folder / "test.safetensors", folder):
            locked.chmod(0)
            answer = r"may not be read .*Give yourself the permission"
            with Powerless(), pytest.raises(DataError, match=answer) as caught:
                load("mnist", "test", dataset_root=root, download=False)
            assert "Delete" not in str(caught.value)
            assert "is not in" not in str(caught.value)
            locked.chmod(0o755)
        folder.chmod(0)
        with Powerless(), pytest.raises(DataError, match="may not be read"):
            available("mnist", dataset_root=root)
        folder.chmod(0o755)


def load_elsewhere(name, split, root):
    """In another process, which can be ended if it hangs."""
    script = f"from avsi.data import load; load({name!r}, {split!r}, dataset_root={str(root)!r}, download=False)"
    command = [sys.executable, "-W", "ignore", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    return done.stderr


def test_a_fifo_in_place_of_a_file_is_an_error_and_no_hang(path):
    os.mkfifo(path)
    assert "it is no regular file" in load_elsewhere("mnist", "test", path.parent.parent)


def test_a_fifo_among_the_publishers_files_is_an_error_and_no_hang(archives, tmp_path):
    for name, what in (("mnist", "gz"), ("notmnist", "gz"), ("mnist_background", "amat")):
        for file in archives.get(name, [f"mnist_background_images_{split}.amat" for split in ("train", "test")]):
            fifo = tmp_path / name / "source" / file
            fifo.parent.mkdir(parents=True, exist_ok=True)
            os.mkfifo(fifo)
        stderr = load_elsewhere(name, "train", tmp_path)
        assert re.search(rf"source/.*{what} is there, but is no regular file", stderr)


def test_a_file_cut_short_while_it_is_in_use_is_an_error_before_the_next_pass(path, tensors):
    store.write(path, path.parent, **tensors, metadata=META)
    digits = read(path)
    data = ImageDataset(digits.images, torch.arange(len(digits)), digits.labels)
    loader = torch.utils.data.DataLoader(data, batch_size=10)
    assert len(list(InMemoryLoader(loader))) == 10
    size = path.stat().st_size
    os.truncate(path, 5000)
    for use in (lambda: InMemoryLoader(loader), digits.fingerprint):
        with pytest.raises(DataError, match=f"was cut short from {size} to 5000 bytes while it was in use"):
            use()
    with pytest.raises(DataError, match="it cannot be read"):
        read(path)
    path.unlink()  # what is removed or replaced lives on in the mapping
    store.write(path, path.parent, tensors["images"][:5], tensors["labels"][:5], META)
    InMemoryLoader(loader)
