import contextlib
import fcntl
import gzip
import multiprocessing
import os
import pty
import signal
import socket
import struct
import sys
import tempfile
import termios
import threading
import time
from pathlib import Path

import pytest
import torch
from tqdm import tqdm

from avsi.data import DataError, load, preparing, sources, store

NAMES = ("mnist", "fashion_mnist", "cifar10", "cifar100", "notmnist", "svhn")
FORK = multiprocessing.get_context("fork")  # children share the patched checksums and the imported torch


def put(folder, files):
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)


def contents(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


PREPARED = [".lock", "test.safetensors", "train.safetensors"]


def assert_prepared(root, name, expected):
    for split in ("train", "test"):
        found, (images, labels) = load(name, split, dataset_root=root, download=False), expected(name, split)
        assert found.images.dtype == torch.uint8
        assert found.labels.dtype == torch.int64
        assert torch.equal(found.images, images)
        assert torch.equal(found.labels, labels)


# Obtaining


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_data_set_is_downloaded_once_and_leaves_only_prepared_files(
    name, publisher, archives, expected, tmp_path, capfd
):
    train = load(name, "train", dataset_root=tmp_path)
    assert contents(tmp_path / name) == PREPARED
    asked = publisher.requests.copy()
    assert set(asked) == {f"{name}/{path.rpartition('/')[2]}" for path in archives[name]}
    assert_prepared(tmp_path, name, expected)
    load(name, "train", dataset_root=tmp_path)
    assert publisher.requests == asked
    # Here is a part of what is published, and it does not pass for the whole.
    assert train.metadata["complete"] == "false"
    assert not train.complete
    assert train.metadata["source"]
    out, err = capfd.readouterr()
    assert out == ""
    assert err.splitlines() == [err.strip()], "one plain line where stderr is no terminal"
    assert f"downloading {name} from {publisher.address}" in err


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", ["packed", "unpacked"])
def test_files_the_user_put_there_are_used_and_kept(name, form, publisher, archives, expected, tmp_path):
    if form == "packed" or name in {"notmnist", "svhn"}:  # the files of these two are read as they are
        files = archives[name]
    elif name.startswith("cifar"):
        folder = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}[name]
        files = {f"{folder}/{path}": data for path, data in archives["members"][name].items()}
    else:
        files = {path.removesuffix(".gz"): gzip.decompress(data) for path, data in archives[name].items()}
    given = tmp_path / name / "source"
    put(given, files)
    load(name, "test", dataset_root=tmp_path, download=False)
    assert_prepared(tmp_path, name, expected)
    assert contents(given) == sorted(files)
    assert all((given / path).read_bytes() == data for path, data in files.items())
    assert contents(tmp_path / name) == sorted(PREPARED + [f"source/{path}" for path in files])
    assert not publisher.requests


def test_only_what_the_user_did_not_put_there_is_downloaded(publisher, archives, expected, tmp_path):
    altered, *rest = archives["mnist"]
    given = tmp_path / "mnist" / "source"
    put(given, {path: archives["mnist"][path] for path in rest[:2]} | {altered: b"not a gzip file"})
    with pytest.raises(DataError, match=f"{given / altered} is there, but is not what"):
        load("mnist", "train", dataset_root=tmp_path, download=False)
    load("mnist", "train", dataset_root=tmp_path)
    assert {path.rpartition("/")[2] for path in publisher.requests} == {Path(altered).name, Path(rest[2]).name}
    assert_prepared(tmp_path, "mnist", expected)
    assert (given / altered).read_bytes() == b"not a gzip file"


def test_a_split_that_is_there_is_left_alone(publisher, expected, tmp_path):
    load("mnist", "train", dataset_root=tmp_path)
    train, test = (tmp_path / "mnist" / f"{split}.safetensors" for split in ("train", "test"))
    before = train.stat()
    test.unlink()
    load("mnist", "test", dataset_root=tmp_path)
    assert train.stat().st_mtime_ns == before.st_mtime_ns
    assert_prepared(tmp_path, "mnist", expected)


def test_a_damaged_file_is_mended_as_the_error_says(publisher, expected, tmp_path):
    load("mnist", "train", dataset_root=tmp_path)
    path = tmp_path / "mnist" / "train.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="Delete it and run again"):
        load("mnist", "train", dataset_root=tmp_path)
    path.unlink()
    load("mnist", "train", dataset_root=tmp_path)
    assert_prepared(tmp_path, "mnist", expected)


# Failing


def test_missing_data_names_the_data_set_the_folder_and_the_ways_to_mend_it(publisher, tmp_path):
    with pytest.raises(DataError) as caught:
        load("mnist", "train", dataset_root=tmp_path / "root", download=False)
    message = str(caught.value)
    folder = tmp_path / "root" / "mnist"
    assert message.startswith(f"the data set 'mnist' is not in {folder} ")
    assert "download=False" in message
    assert "connect to the network and run again" in message
    assert "--data-root FOLDER" in message
    assert "AVSI_DATA=FOLDER" in message
    assert f"put the publisher's files into {folder / 'source'}" in message
    assert "MNIST/raw/t10k-labels-idx1-ubyte.gz" in message
    assert publisher.address in message
    assert not publisher.requests
    assert not (tmp_path / "root").exists(), "nothing is created where nothing may be downloaded"


@pytest.mark.parametrize("name", ["mnist", "cifar10", "notmnist", "svhn"])
def test_no_network(name, publisher, tmp_path, capfd):
    publisher.server.shutdown()
    publisher.server.server_close()
    with pytest.raises(DataError, match=rf"'{name}' is not in {tmp_path / name} .*could not be downloaded") as caught:
        load(name, "train", dataset_root=tmp_path)
    message = str(caught.value)
    assert "Connection refused" in message
    assert "connect to the network" in message
    assert "Traceback" not in message
    assert len(message.splitlines()) < 8
    assert caught.value.__cause__ is not None
    assert contents(tmp_path) == [f"{name}/.lock"]
    assert len(capfd.readouterr().err.splitlines()) == 1
    assert socket.getdefaulttimeout() is None


@pytest.mark.parametrize("name", ["mnist", "cifar10", "notmnist", "svhn"])
@pytest.mark.parametrize("fault", ["cut", "altered", "refused", "stalls"])
def test_a_spoilt_download_leaves_nothing_behind(name, fault, publisher, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(preparing, "STALLED_SECONDS", 0.3)
    publisher.fault = fault
    with pytest.raises(DataError, match="could not be downloaded") as caught:
        load(name, "train", dataset_root=tmp_path)
    assert {"refused": "403", "stalls": "timed out"}.get(fault, "corrupted") in str(caught.value)
    assert "To mend this, do one of:" in str(caught.value)
    assert contents(tmp_path / name) == [".lock"]
    publisher.fault = None
    load(name, "train", dataset_root=tmp_path)
    assert_prepared(tmp_path, name, expected)


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("mnist", "t10k-labels-idx1-ubyte.gz"),
        ("notmnist", "t10k-labels-idx1-ubyte.gz"),
        ("svhn", "test_32x32.mat"),
    ],
)
def test_what_came_whole_before_a_failure_is_not_downloaded_again(name, last, publisher, expected, tmp_path):
    last = f"{name}/{last}"
    withheld = publisher.files.pop(last)
    with pytest.raises(DataError, match="could not be downloaded"):
        load(name, "train", dataset_root=tmp_path)
    publisher.files[last] = withheld
    publisher.requests.clear()
    load(name, "train", dataset_root=tmp_path)
    assert set(publisher.requests) == {last}
    assert contents(tmp_path / name) == PREPARED
    assert_prepared(tmp_path, name, expected)


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("MNIST/raw/train-images-idx3-ubyte", lambda data: data[:-100]),
        ("MNIST/raw/train-images-idx3-ubyte", lambda data: b""),
        ("MNIST/raw/train-labels-idx1-ubyte", lambda data: b"garbage" + data),
        ("MNIST/raw/train-labels-idx1-ubyte", lambda data: data[:-1] + b"\x0b"),
        ("MNIST/raw/train-labels-idx1-ubyte", lambda data: data[:4] + (399).to_bytes(4, "big") + data[8:-1]),
    ],
)
def test_unsound_files_of_the_user_are_refused(path, data, publisher, archives, tmp_path):
    files = {name.removesuffix(".gz"): gzip.decompress(packed) for name, packed in archives["mnist"].items()}
    put(tmp_path / "mnist" / "source", files | {path: data(files[path])})
    with pytest.raises(DataError, match="the train split of 'mnist' cannot be made from the publisher's files in"):
        load("mnist", "train", dataset_root=tmp_path)
    assert not list((tmp_path / "mnist").glob("*.safetensors"))
    assert not (tmp_path / "mnist" / ".work").exists()


def test_a_full_disk_is_named(publisher, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "save_file", fail)
    with pytest.raises(DataError, match=r"'mnist' could not be written to .*No space left on device.*Make room"):
        load("mnist", "train", dataset_root=tmp_path)
    assert not list((tmp_path / "mnist").glob("*.safetensors"))


@contextlib.contextmanager
def powerless():
    """Be a user whom permissions bind."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_folder_that_is_not_writable_is_refused_before_any_download(publisher, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="is not writable"):
        load("mnist", "train", dataset_root=tmp_path / "file")
    with tempfile.TemporaryDirectory() as folder:  # unlike tmp_path, open to every user
        for locked in (Path(folder), Path(folder) / "mnist"):
            locked.mkdir(exist_ok=True)
            locked.chmod(0o555)
            with powerless(), pytest.raises(DataError) as caught:
                load("mnist", "train", dataset_root=folder)
            assert f"the data set 'mnist' must be prepared, but {Path(folder) / 'mnist'} is not writable" in str(
                caught.value
            )
            assert "--data-root FOLDER" in str(caught.value)
            locked.chmod(0o755)
        load("mnist", "train", dataset_root=folder)
        before = publisher.requests.copy()
        (Path(folder) / "mnist" / "test.safetensors").unlink()
        (Path(folder) / "mnist").chmod(0o555)
        with powerless():  # what is prepared can be read there all the same
            assert len(load("mnist", "train", dataset_root=folder)) == 400
            with pytest.raises(DataError, match="is not writable"):
                load("mnist", "test", dataset_root=folder)
        (Path(folder) / "mnist").chmod(0o755)
        assert publisher.requests == before


# Several processes


def run_alone(target, *args):
    torch.set_num_threads(1)  # the parent's OpenMP threads do not live on in a fork
    tqdm.set_lock(threading.RLock())  # the progress bar's lock is shared with the parent, and may never be given back
    target(*args)


def child(target, *args):
    process = FORK.Process(target=run_alone, args=(target, *args), daemon=True)
    process.start()
    return process


def wait_for(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.005)


def load_and_report(root, name, split, start, results):
    start.wait()
    results.put((split, load(name, split, dataset_root=root).fingerprint()))


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_one_of_many_processes_does_the_work(name, publisher, tmp_path, capfd):
    publisher.delay = 0.1
    start, results = FORK.Barrier(6), FORK.Queue()
    processes = [child(load_and_report, tmp_path, name, split, start, results) for split in ("train", "test") * 3]
    found = [results.get(timeout=20) for _ in processes]
    for process in processes:
        process.join(10)
        assert process.exitcode == 0
    assert set(found) == {
        (split, load(name, split, dataset_root=tmp_path).fingerprint()) for split in ("train", "test")
    }
    # torchvision asks twice for a file: once to follow redirections, once to read it.
    assert set(publisher.requests.values()) == {2}
    assert contents(tmp_path / name) == PREPARED
    lines = capfd.readouterr().err.splitlines()
    assert sum("downloading" in line for line in lines) == 1
    waiting = f"avsi: waiting for another process that prepares {name} in {tmp_path / name}"
    assert lines.count(waiting) == 5


def hang(event):
    event.set()
    time.sleep(60)


def killed_while_writing(root, reached):
    def save_half(tensors, path, metadata):
        whole = store_save(tensors, path, metadata=metadata)
        with open(path, "r+b") as file:
            file.truncate(path.stat().st_size // 2)
        hang(reached)
        return whole

    store_save = store.save_file
    store.save_file = save_half
    load("mnist", "train", dataset_root=root)


def killed_before_the_rename(root, reached):
    store.os.replace = lambda *_: hang(reached)
    load("mnist", "train", dataset_root=root)


def killed_between_the_splits(root, reached):
    write = store.write
    store.write = lambda path, *rest: write(path, *rest) if path.name.startswith("train") else hang(reached)
    load("mnist", "train", dataset_root=root)


def killed_while_unpacking(root, reached):
    fetch = sources.IdxSource.fetch

    def fetch_all_but_the_end(self, folder):
        fetch(self, folder)
        last = folder / "MNIST/raw/t10k-labels-idx1-ubyte"
        last.write_bytes(last.read_bytes()[:20])
        hang(reached)

    sources.IdxSource.fetch = fetch_all_but_the_end
    load("mnist", "train", dataset_root=root)


def killed_while_downloading(root, reached):
    load("mnist", "train", dataset_root=root)


@pytest.mark.parametrize(
    "scene",
    [
        killed_while_downloading,
        killed_while_unpacking,
        killed_while_writing,
        killed_before_the_rename,
        killed_between_the_splits,
    ],
)
def test_a_killed_process_leaves_nothing_that_is_taken_for_data(scene, publisher, expected, tmp_path):
    folder, reached = tmp_path / "mnist", FORK.Event()
    downloading = scene is killed_while_downloading
    publisher.fault = "stalls" if downloading else None
    for _ in range(2):  # the second one meets what the first one left
        reached.clear()
        publisher.stalled.clear()
        for path in folder.glob("*.safetensors"):
            path.unlink()
        process = child(scene, tmp_path, reached)
        assert (publisher.stalled if downloading else reached).wait(10)
        wait_for(lambda: any((folder / ".work").rglob("*")))
        os.kill(process.pid, signal.SIGKILL)
        process.join(10)
        assert process.exitcode == -signal.SIGKILL
        prepared = sorted(path.name for path in folder.glob("*.safetensors"))
        assert prepared == (["train.safetensors"] if scene is killed_between_the_splits else [])
        for path in folder.glob("*.safetensors"):
            assert torch.equal(load("mnist", path.stem, dataset_root=tmp_path).images, expected("mnist", path.stem)[0])
    publisher.fault = None
    load("mnist", "test", dataset_root=tmp_path)
    load("mnist", "train", dataset_root=tmp_path)
    assert_prepared(tmp_path, "mnist", expected)
    assert contents(folder) == PREPARED


def test_the_lock_of_a_killed_process_is_free_and_a_live_one_is_waited_for(publisher, expected, tmp_path, capfd):
    reached = FORK.Event()
    holder = child(killed_before_the_rename, tmp_path, reached)
    assert reached.wait(10)
    start, results = FORK.Barrier(1), FORK.Queue()
    waiter = child(load_and_report, tmp_path, "mnist", "train", start, results)
    err = ""

    def waiting():
        nonlocal err
        err += capfd.readouterr().err
        return "waiting for another process that prepares mnist" in err

    wait_for(waiting)
    assert waiter.is_alive()
    os.kill(holder.pid, signal.SIGKILL)
    assert results.get(timeout=10)[0] == "train"
    waiter.join(10)
    assert_prepared(tmp_path, "mnist", expected)


# What is seen


def load_on_a_terminal(root, name, terminal):
    os.dup2(terminal, 2)
    sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115 - lives as long as the process
    os.environ["TERM"] = "xterm"
    load(name, "train", dataset_root=root)


def test_a_terminal_shows_the_download_and_the_preparation(publisher, tmp_path, capfd):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    process = child(load_on_a_terminal, tmp_path, "cifar10", theirs)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # how Linux says that the other side is closed
        while part := os.read(ours, 4096):
            shown += part
    process.join(10)
    os.close(ours)
    assert process.exitcode == 0
    assert b"avsi: downloading cifar10" in shown
    assert b"100%|" in shown  # torchvision's bar
    assert b"preparing cifar10" in shown
    assert b"writing test" in shown
    assert capfd.readouterr() == ("", "")
