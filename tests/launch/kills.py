"""Kills a run at random, again and again, and compares its results with those of a run that was left alone.

Run as a command, for it takes minutes: ``python tests/launch/kills.py --kills 40``. A kill hits the run itself or one
of its workers, at a random moment while they train.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

SCRIPT = Path(__file__).parents[2] / "reproductions" / "split_digits.py"
TIMES = {"started", "wall_time_s", "train_time_s", "resumed"}


def start(out: Path, arguments: list[str]) -> subprocess.Popen:
    command = [sys.executable, str(SCRIPT), "--out", str(out), "--device", "cpu", "--threads", "1", *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def workers(run: subprocess.Popen) -> list[psutil.Process]:
    """The processes that train: children of the fork server, or Ray's."""
    try:
        below = psutil.Process(run.pid).children(recursive=True)
        return [p for p in below if "ray::" in p.name() or "forkserver" in " ".join(p.parent().cmdline())]
    except (psutil.Error, AttributeError):  # one of them has just ended
        return []


def results(out: Path) -> dict[str, dict]:
    read = {str(path.relative_to(out)): json.loads(path.read_text()) for path in out.rglob("seed-*.json")}
    return {name: {k: v for k, v in result.items() if k not in TIMES} for name, result in read.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("arguments", nargs="*", help="further arguments of the script")
    options = parser.parse_args()
    arguments = options.arguments or ["--workers", "2", "--methods", "finetune", "si", "dhp+si", "--trials", "2"]
    random.seed(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        killed, alone = Path(folder) / "killed", Path(folder) / "alone"
        done = {"run": 0, "worker": 0}
        begun = 0
        while sum(done.values()) < options.kills:
            run = start(
                killed, [*arguments, "--rerun"] if begun and not list(killed.rglob("*.checkpoint")) else arguments
            )
            begun += 1
            while run.poll() is None and sum(done.values()) < options.kills:
                if not workers(run):
                    time.sleep(0.02)
                    continue
                time.sleep(random.uniform(0, 1.5))
                alive = workers(run)
                if random.random() < 0.2 or not alive:
                    run.kill()
                    done["run"] += 1
                    break
                try:
                    random.choice(alive).send_signal(signal.SIGKILL)
                    done["worker"] += 1
                except psutil.NoSuchProcess:
                    pass
            run.communicate()
        runs = [start(killed, arguments), start(alone, arguments)]
        for run in runs:
            _, error = run.communicate()
            assert run.returncode == 0, error
        resumed = [json.loads(path.read_text())["resumed"] for path in killed.rglob("seed-*.json")]
        assert results(killed) == results(alone)
        left = [
            path.name for path in killed.rglob("*") if path.name.startswith(".seed") or path.suffix == ".checkpoint"
        ]
        assert not left, left
        print(f"{done['run']} kills of the run, {done['worker']} of workers, in {begun} runs; resumed {resumed};")
        print(f"{len(resumed)} results equal to those of an uninterrupted run, nothing left behind")


if __name__ == "__main__":
    main()
