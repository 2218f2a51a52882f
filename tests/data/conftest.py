"""A publisher on the loopback address: genuine archive formats, made from scikit-learn's real digits."""

import gzip
import hashlib
import io
import pickle
import struct
import tarfile
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import scipy.io
import torch
from sklearn.datasets import load_digits
from torchvision.datasets import CIFAR10, CIFAR100, MNIST, SVHN, FashionMNIST

from avsi.data.sources import NotMnistSource

TRAIN, TEST = slice(0, 400), slice(400, 500)


def grey_images():
    """500 digits in the middle of 28x28 pixels."""
    images = load_digits().images[:500].astype(np.uint8) * 15
    return np.pad(images, ((0, 0), (10, 10), (10, 10)))


def colour_images():
    """500 digits on 32x32 pixels, every channel different."""
    grey = np.pad(grey_images(), ((0, 0), (2, 2), (2, 2)))
    return np.stack([grey, 255 - grey, grey.transpose(0, 2, 1)], axis=1)


def class_labels():
    return load_digits().target[:500].astype(np.int64)


def idx(array):
    header = struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


def mat(images, labels):
    """SVHN's format: MATLAB 5, compressed; X of 32 x 32 x 3 x N, y of N x 1 with 10 for the digit 0."""
    buffer = io.BytesIO()
    y = np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]
    scipy.io.savemat(buffer, {"X": images.transpose(2, 3, 1, 0), "y": y}, do_compression=True)
    return buffer.getvalue()


def md5(data):
    return hashlib.md5(data).hexdigest()


def git_blob_sha1(data):
    return hashlib.sha1(b"blob " + str(len(data)).encode() + b"\0" + data).hexdigest()


class Publisher:
    """Serves `files` (path: bytes) and counts the requests; `fault` spoils every answer."""

    def __init__(self):
        self.files = {}
        self.requests = Counter()
        self.fault = None
        self.delay = 0.0
        self.stalled = threading.Event()
        self.resume = threading.Event()
        publisher = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                publisher.answer(self)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True, kwargs={"poll_interval": 0.02}).start()

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, request):
        path = request.path.lstrip("/")
        self.requests[path] += 1
        if self.fault == "refused" or path not in self.files:
            request.send_error(403)
            return
        body = self.files[path]
        if self.fault == "altered":
            body = body[:-20] + bytes([body[-20] ^ 1]) + body[-19:]
        time.sleep(self.delay)
        request.send_response(200)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        try:
            if self.fault in {"cut", "stalls"}:
                request.wfile.write(body[: len(body) // 2])
                request.wfile.flush()
                if self.fault == "stalls":
                    self.stalled.set()
                    self.resume.wait(20)
            else:
                request.wfile.write(body)
        except OSError:  # the client has seen enough
            pass


@pytest.fixture(scope="session")
def archives():
    """The files of the data sets as their publishers pack them: name -> {path in torchvision's layout: bytes}."""
    grey, colour, labels = grey_images(), colour_images(), class_labels()
    parts = {
        "train-images-idx3-ubyte.gz": grey[TRAIN],
        "train-labels-idx1-ubyte.gz": labels[TRAIN],
        "t10k-images-idx3-ubyte.gz": grey[TEST],
        "t10k-labels-idx1-ubyte.gz": labels[TEST],
    }
    packed = {name: gzip.compress(idx(part), mtime=0) for name, part in parts.items()}

    def batch(rows, key):
        return pickle.dumps({"data": colour[rows].reshape(-1, 3072), key: labels[rows].tolist()})

    ten = {f"data_batch_{i + 1}": batch(slice(80 * i, 80 * i + 80), "labels") for i in range(5)}
    ten |= {"test_batch": batch(TEST, "labels"), "batches.meta": pickle.dumps({"label_names": list("abcdefghij")})}
    hundred = {
        "train": batch(TRAIN, "fine_labels"),
        "test": batch(TEST, "fine_labels"),
        "meta": pickle.dumps({"fine_label_names": [str(i) for i in range(100)]}),
    }

    def tar(folder, members):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as file:
            for name, data in members.items():
                info = tarfile.TarInfo(f"{folder}/{name}")
                info.size = len(data)
                file.addfile(info, io.BytesIO(data))
        return buffer.getvalue()

    return {
        "mnist": {f"MNIST/raw/{name}": data for name, data in packed.items()},
        "fashion_mnist": {f"FashionMNIST/raw/{name}": data for name, data in packed.items()},
        "cifar10": {"cifar-10-python.tar.gz": tar("cifar-10-batches-py", ten)},
        "cifar100": {"cifar-100-python.tar.gz": tar("cifar-100-python", hundred)},
        "notmnist": {f"notMNIST/raw/{name}": data for name, data in packed.items()},
        "svhn": {
            "train_32x32.mat": mat(colour[TRAIN], labels[TRAIN]),
            "test_32x32.mat": mat(colour[TEST], labels[TEST]),
        },
        "members": {"cifar10": ten, "cifar100": hundred},
    }


@pytest.fixture
def publisher(archives, monkeypatch):
    """A running publisher that the data sets are downloaded from, its files' checksums in place of the real ones."""
    publisher = Publisher()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    for cls, name in ((MNIST, "mnist"), (FashionMNIST, "fashion_mnist")):
        files = {path.rpartition("/")[2]: data for path, data in archives[name].items()}
        publisher.files |= {f"{name}/{file}": data for file, data in files.items()}
        monkeypatch.setattr(cls, "mirrors", [f"{publisher.address}/{name}/"])
        monkeypatch.setattr(cls, "resources", [(file, md5(data)) for file, data in files.items()])
    for cls, name in ((CIFAR10, "cifar10"), (CIFAR100, "cifar100")):
        ((file, data),) = archives[name].items()
        members = archives["members"][name]
        publisher.files[f"{name}/{file}"] = data
        monkeypatch.setattr(cls, "url", f"{publisher.address}/{name}/{file}")
        monkeypatch.setattr(cls, "tgz_md5", md5(data))
        monkeypatch.setattr(cls, "train_list", [[batch, md5(members[batch])] for batch, _ in cls.train_list])
        monkeypatch.setattr(cls, "test_list", [[batch, md5(members[batch])] for batch, _ in cls.test_list])
        monkeypatch.setattr(cls, "meta", {**cls.meta, "md5": md5(members[cls.meta["filename"]])})
    files = {path.rpartition("/")[2]: data for path, data in archives["notmnist"].items()}
    publisher.files |= {f"notmnist/{file}": data for file, data in files.items()}
    monkeypatch.setattr(NotMnistSource, "mirror", f"{publisher.address}/notmnist/")
    monkeypatch.setattr(NotMnistSource, "files", {file: git_blob_sha1(data) for file, data in files.items()})
    files = archives["svhn"]
    publisher.files |= {f"svhn/{file}": data for file, data in files.items()}
    lines = {file.split("_")[0]: [f"{publisher.address}/svhn/{file}", file, md5(data)] for file, data in files.items()}
    monkeypatch.setattr(SVHN, "split_list", lines)
    yield publisher
    publisher.resume.set()
    publisher.server.shutdown()
    publisher.server.server_close()


@pytest.fixture
def expected():
    """What must come out of the publisher's files: (name, split) -> images and labels."""
    images = {"mnist": grey_images()[:, None], "cifar10": colour_images()}
    images |= dict.fromkeys(("fashion_mnist", "notmnist"), images["mnist"])
    images |= dict.fromkeys(("cifar100", "svhn"), images["cifar10"])

    def of(name, split):
        rows = TRAIN if split == "train" else TEST
        return torch.from_numpy(images[name][rows]), torch.from_numpy(class_labels()[rows])

    return of
