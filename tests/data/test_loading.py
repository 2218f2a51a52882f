from pathlib import Path

import platformdirs
import pytest

from avsi.data import DATASETS, DataError, data_root, load, published_counts


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
        load("minst", "train", root=tmp_path)
    with pytest.raises(DataError, match=r"unknown data set 'minst'"):
        published_counts("minst", "train")


@pytest.mark.parametrize("name", DATASETS)
def test_an_unknown_split_is_refused(name, tmp_path):
    with pytest.raises(DataError, match=rf"'{name}' has no split 'valid'; there are train and test"):
        load(name, "valid", root=tmp_path)
    assert not list(tmp_path.iterdir())


def test_published_counts_add_up_to_the_published_sizes():
    sizes = {name: tuple(sum(published_counts(name, split)) for split in ("train", "test")) for name in DATASETS}
    assert sizes == {
        "digits": (1442, 355),
        "mnist": (60_000, 10_000),
        "fashion_mnist": (60_000, 10_000),
        "cifar10": (50_000, 10_000),
        "cifar100": (50_000, 10_000),
    }
    assert [len(published_counts(name, "test")) for name in DATASETS] == [10, 10, 10, 10, 100]
