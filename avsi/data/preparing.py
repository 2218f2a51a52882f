"""Make the prepared files of a data set from the publisher's files, one process at a time.

In ``ROOT/<name>``: ``source`` holds files that the user put there, which are only ever read; ``.work`` holds downloads
and unfinished files, and exists only while something is prepared; ``.lock`` is held by the process that does it.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from avsi.data import progress, store
from avsi.data.catalog import PUBLISHED, SPLITS
from avsi.data.errors import DataError
from avsi.data.sources import SOURCES, Source

STALLED_SECONDS = 60.0


def prepare(root: Path, name: str, *, download: bool) -> None:
    """Write the prepared files of a data set that are missing; a DataError says why that cannot be."""
    source, folder = SOURCES[name], root / name
    if not is_given(root, name):
        # Before anything is written: a look at what is there leaves no traces.
        if not source.downloadable:
            raise DataError(_missing(folder, name, source, "it is not downloaded, since nothing vouches for its files"))
        if not download:
            raise DataError(_missing(folder, name, source, "it may not be downloaded (download=False)"))
    with _locked(folder, name):
        wanted = [split for split in SPLITS if not store.is_there(store.prepared_path(root, name, split))]
        if not wanted:  # another process was faster
            return
        with _work_folder(folder, name, source) as work:
            raw = _obtain(folder, name, source, work, download=download)
            _convert(root, name, source, raw, work, wanted)


def is_given(root: Path, name: str) -> bool:
    """Check whether what the user put into ``ROOT/<name>/source`` suffices, extracted or as archives."""
    source, given = SOURCES[name], root / name / "source"
    return source.is_readable(given) or len(list(source.intact_archives(given))) == len(source.archives())


@contextmanager
def _locked(folder: Path, name: str) -> Iterator[None]:
    # The system takes the lock back from a process that dies; the empty file stays, since removing it would race.
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            progress.say(f"waiting for another process that prepares {name} in {folder}")
            lock.acquire()
    except (OSError, NotImplementedError) as error:
        raise DataError(_not_writable(folder, name, error)) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _work_folder(folder: Path, name: str, source: Source) -> Iterator[Path]:
    # Whole downloads are all that a failed attempt leaves, for the next one to use.
    work = folder / ".work"
    try:
        work.mkdir(exist_ok=True)
        _tidy(work, source)  # what a killed process left
        (work / "probe").write_bytes(b"")
    except OSError as error:
        raise DataError(_not_writable(folder, name, error)) from error
    try:
        yield work
    except BaseException:
        with suppress(OSError):  # the failure itself says more
            _tidy(work, source)
            if not any(work.iterdir()):
                work.rmdir()
        raise
    shutil.rmtree(work, ignore_errors=True)


def _tidy(work: Path, source: Source) -> None:
    download = work / "download"
    keep = {download / path for path in source.intact_archives(download)}
    for path in sorted(work.rglob("*"), reverse=True):  # a folder comes after what it holds
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif path not in keep:
            path.unlink()


def _obtain(folder: Path, name: str, source: Source, work: Path, *, download: bool) -> Path:
    # Makes the extracted files available, and returns the folder that holds them.
    given, raw = folder / "source", work / "download"
    if source.is_readable(given):
        progress.say(f"preparing {name} in {folder} from {given}")
        return given
    failure = "its files could not be unpacked"
    timeout = socket.getdefaulttimeout()
    try:
        for path in source.intact_archives(given):
            _link(given / path, raw / path)
        missing = len(source.archives()) - len(list(source.intact_archives(raw)))
        if missing == 0:
            progress.say(f"preparing {name} in {folder}")
        elif download:
            failure = "it could not be downloaded"
            progress.say(f"downloading {name} from {source.address} (files: {missing}) and preparing it in {folder}")
        else:
            raise FileNotFoundError(f"{missing} files have gone from {given}")
        socket.setdefaulttimeout(STALLED_SECONDS)  # torchvision sets none, and a dead connection would hang for ever
        with progress.torchvision_output():
            source.fetch(raw)
    except Exception as error:  # torchvision lets through whatever its network, archive and pickle modules raise
        raise DataError(_missing(folder, name, source, f"{failure} ({_in_one_line(error)})")) from error
    finally:
        socket.setdefaulttimeout(timeout)
    return raw


def _link(original: Path, link: Path) -> None:
    # Shows a file of the user's in the work folder: torchvision never writes into an archive that is intact.
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    try:
        os.link(original.resolve(), link)
    except OSError:  # another file system, or one without links
        shutil.copyfile(original, link)


def _convert(root: Path, name: str, source: Source, raw: Path, work: Path, splits: list[str]) -> None:
    with progress.steps(f"preparing {name}", total=2 * len(splits)) as begin:
        for split in splits:
            begin(f"reading {split}")
            try:
                with progress.torchvision_output():
                    images, labels = source.read(raw, split)
                problem = store.find_problem(name, images, labels)
            except Exception as error:  # as above
                raise DataError(_unusable(raw, name, split, _in_one_line(error))) from error
            if problem:
                raise DataError(_unusable(raw, name, split, problem))
            complete = PUBLISHED[name].is_whole(split, labels)
            metadata = {
                "name": name,
                "split": split,
                "source": PUBLISHED[name].source,
                "complete": "true" if complete else "false",
                "note": "" if complete else "the number of images is not the published one",
            }
            begin(f"writing {split}")
            try:
                store.write(store.prepared_path(root, name, split), work, images, labels, metadata)
            except Exception as error:  # OSError, or safetensors' own error for a full disk
                raise DataError(
                    f"the data set {name!r} could not be written to {root / name} ({_in_one_line(error)}). Make room "
                    f"there, or choose another folder by --data-root FOLDER or AVSI_DATA=FOLDER."
                ) from error


def _missing(folder: Path, name: str, source: Source, reason: str) -> str:
    given = folder / "source"
    intact = set(source.intact_archives(given))
    files = [path for path, _ in source.archives()]
    altered = [path for path in files if path not in intact and os.path.lexists(given / path)]
    prepared = f"{name}/train.safetensors and {name}/test.safetensors"
    lines = [
        f"the data set {name!r} is not in {folder} ({name}/train.safetensors, {name}/test.safetensors) and {reason}.",
        *(f"{given / path} is there, but {_flaw(given / path)}." for path in altered),
        "To mend this, do one of:",
        *(["- connect to the network and run again, downloads allowed;"] if source.downloadable else []),
        f"- say --data-root FOLDER (dataset_root= in Python) or set AVSI_DATA=FOLDER, a folder that holds {prepared};",
        f"- put the publisher's files into {given} and run again: {', '.join(files)} (from {source.address}).",
    ]
    return "\n".join(lines)


def _flaw(path: Path) -> str:
    if not os.path.isfile(path):
        return "is no regular file"
    try:
        path.open("rb").close()
    except OSError as error:
        return f"may not be read ({error}): give yourself the permission"
    return "is not what the publisher made: wrong checksum"


def _unusable(raw: Path, name: str, split: str, problem: str) -> str:
    return (
        f"the {split} split of {name!r} cannot be made from the publisher's files in {raw}: {problem}. Delete these"
        " files, or replace them by sound ones, and run again."
    )


def _not_writable(folder: Path, name: str, error: Exception) -> str:
    return (
        f"the data set {name!r} must be prepared, but {folder} is not writable ({error}). Make it writable, or choose"
        " another folder by --data-root FOLDER (dataset_root= in Python) or AVSI_DATA=FOLDER."
    )


def _in_one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:297]}..."
