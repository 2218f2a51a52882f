"""Kills runs at random, again and again, and compares their results with those of a run that was left alone.

Run as a command, for it takes minutes: ``python tests/launch/kills.py FOLDER --kills 40``. A kill hits the run itself
or one of its workers, at a random moment while they train. What is done is noted in the folder: with ``--seconds`` the
command ends in time, and the same command resumes.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from pathlib import Path

import psutil

SCRIPT = Path(__file__).parents[2] / "reproductions" / "split_digits.py"
ARGUMENTS = ["--workers", "2", "--methods", "finetune", "si", "dhp+si", "--trials", "2"]
TIMES = {"started", "wall_time_s", "train_time_s", "resumed"}


def start(out: Path, arguments: list[str]) -> subprocess.Popen:
    command = [sys.executable, str(SCRIPT), "--out", str(out), "--device", "cpu", "--threads", "1", *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def workers(run: subprocess.Popen) -> list[psutil.Process]:
    """The processes that train: children of the fork server, or Ray's."""
    try:
        below = psutil.Process(run.pid).children(recursive=True)
        return [p for p in below if "ray::_run" in p.name() or "forkserver" in " ".join(p.parent().cmdline())]
    except (psutil.Error, AttributeError):  # one of them has just ended
        return []


def kill(run: subprocess.Popen, kills: int, until: float, pause: float) -> dict[str, int]:
    """Kill a run's workers at random moments, at last the run or not; return how many of which."""
    done = {"run": 0, "worker": 0}
    while run.poll() is None and sum(done.values()) < kills and time.monotonic() < until:
        if not workers(run):
            time.sleep(0.02)
            continue
        time.sleep(random.uniform(0, pause))
        alive = workers(run)
        if not alive:
            continue
        if random.random() < 0.25:
            run.kill()
            done["run"] += 1
        else:
            random.choice(alive).kill()
            done["worker"] += 1
    run.kill()  # where kills or time have run out
    run.communicate()
    return done


def read(out: Path) -> dict[str, dict]:
    return {str(path.relative_to(out)): json.loads(path.read_text()) for path in out.rglob("seed-*.json")}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--pause", type=float, default=8.0, help="seconds of training before a kill, at most")
    parser.add_argument("--seconds", type=float, default=24 * 3600.0)
    parser.add_argument("arguments", nargs="*", default=ARGUMENTS, help="further arguments of the script")
    options = parser.parse_args()
    until = time.monotonic() + options.seconds
    killed, alone, notes = (options.folder / name for name in ("killed", "alone", "notes.json"))
    done = json.loads(notes.read_text()) if notes.exists() else {"runs": 0, "run": 0, "worker": 0}
    random.seed(done["runs"])
    again: list[str] = []
    while done["run"] + done["worker"] < options.kills and time.monotonic() < until:
        rest = options.kills - done["run"] - done["worker"]
        counts = kill(start(killed, [*options.arguments, *again]), rest, until, options.pause)
        done = {"runs": done["runs"] + 1, **{key: done[key] + count for key, count in counts.items()}}
        again = [] if any(counts.values()) else ["--rerun"]  # all trials were finished
        options.folder.mkdir(parents=True, exist_ok=True)
        notes.write_text(json.dumps(done))
    print(done, "finished", len(read(killed)), flush=True)
    for out in (killed, alone):
        if time.monotonic() < until:
            run = start(out, options.arguments)
            try:
                _, error = run.communicate(timeout=max(1.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                run.kill()
                return
            assert run.returncode == 0, error
    if time.monotonic() < until:
        results, others = read(killed), read(alone)
        resumed = [result["resumed"] for result in results.values()]
        for result in (*results.values(), *others.values()):
            for key in TIMES:
                del result[key]
        assert results == others
        left = [p.name for p in killed.rglob("*") if p.name.startswith(".seed") or p.suffix == ".checkpoint"]
        assert not left, left
        print(f"{len(results)} results equal to those of an uninterrupted run; resumed {resumed}; nothing left behind")


if __name__ == "__main__":
    main()
