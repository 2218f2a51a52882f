from pathlib import Path

import platformdirs
import pytest

from avsi.data import DATASETS, DataError, available, data_root, load, published_counts, published_size


def test_data_root_is_the_argument_then_the_environment_then_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("AVSI_DATA", str(tmp_path / "environment"))
    assert data_root(tmp_path / "argument") == tmp_path / "argument"
    assert data_root() == tmp_path / "environment"
    monkeypatch.setenv("AVSI_DATA", "")
    assert data_root() == Path(platformdirs.user_cache_dir("avsi", appauthor=False))
    monkeypatch.delenv("AVSI_DATA")
    assert data_root() == Path(platformdirs.user_cache_dir("avsi", appauthor=False))
    assert data_root("~/images") == Path.home() / "images"


def test_an_unknown_data_set_is_refused_by_name(tmp_path):
    with pytest.raises(DataError, match=r"unknown data set 'minst'; known are digits, mnist, .*cifar100"):
        load("minst", "train", dataset_root=tmp_path)
    with pytest.raises(DataError, match=r"unknown data set 'minst'"):
        published_counts("minst", "train")


@pytest.mark.parametrize("name", DATASETS)
def test_an_unknown_split_is_refused(name, tmp_path):
    with pytest.raises(DataError, match=rf"'{name}' has no split 'valid'; there are train and test"):
        load(name, "valid", dataset_root=tmp_path)
    assert not list(tmp_path.iterdir())


def test_published_counts_add_up_to_the_published_sizes():
    sizes = {name: tuple(published_size(name, split) for split in ("train", "test")) for name in DATASETS}
    assert sizes == {
        "digits": (1442, 355),
        "mnist": (60_000, 10_000),
        "fashion_mnist": (60_000, 10_000),
        "cifar10": (50_000, 10_000),
        "cifar100": (50_000, 10_000),
        "notmnist": (60_000, 10_000),
        "svhn": (73_257, 26_032),
        "mnist_background": (12_000, 50_000),
    }
    counted = [name for name in DATASETS if name != "mnist_background"]
    for name in counted:
        for split in ("train", "test"):
            assert sum(published_counts(name, split)) == published_size(name, split)
            assert published_size(name, split, [1, 3]) == sum(published_counts(name, split)[c] for c in (1, 3))
    assert [len(published_counts(name, "test")) for name in counted] == [10, 10, 10, 10, 100, 10, 10]


def test_published_sizes_of_some_classes():
    assert published_size("mnist", "test", (c for c in (1, 0, 1))) == 2115
    for unknown in (10, -1):
        with pytest.raises(DataError, match=f"'mnist' has no class {unknown}; there are 0 to 9"):
            published_size("mnist", "test", [0, unknown])


def test_counts_that_nobody_publishes():
    with pytest.raises(DataError, match="how many images of each class 'mnist_background' has is not published"):
        published_counts("mnist_background", "train")
    assert published_size("mnist_background", "test", range(10)) == 50_000


def test_available_says_whether_a_download_is_needed(publisher, archives, tmp_path):
    assert available("digits", dataset_root=tmp_path)
    assert not available("svhn", dataset_root=tmp_path)
    load("svhn", "train", dataset_root=tmp_path)
    assert available("svhn", dataset_root=tmp_path)
    for path, data in archives["notmnist"].items():
        assert not available("notmnist", dataset_root=tmp_path)
        given = tmp_path / "notmnist" / "source" / path
        given.parent.mkdir(parents=True, exist_ok=True)
        given.write_bytes(data)
    assert available("notmnist", dataset_root=tmp_path)
    with pytest.raises(DataError, match="unknown data set 'minst'"):
        available("minst", dataset_root=tmp_path)
