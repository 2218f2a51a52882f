"""Sweeps: a method's parameters chosen among many settings, on validation data alone."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

from avsi.experiment.spec import Experiment, ExperimentError, Method, did_you_mean
from avsi.experiment.trial import Trial
from avsi.launch.settings import changed_method, method_of, name_and_value, read_value, value_of
from avsi.results import store

SCALES = ("log", "linear")
MAX_SETTINGS = 10_000  # of a method


@dataclass(frozen=True)
class Range:
    """Values of a parameter such as ``mas.strength``: a list, or the two ends of a scale, ``log`` or ``linear``."""

    name: str
    values: tuple[Any, ...]
    scale: str = ""


def read_ranges(given: Sequence[str]) -> list[Range]:
    """Read what ``--sweep`` was given; each parameter may come once."""
    ranges = [_read_range(text) for text in given]
    names = [range_.name for range_ in ranges]
    for name in names:
        if names.count(name) > 1:
            raise ExperimentError(f"--sweep has {name} twice; give all its values at once")
    return ranges


def _read_range(text: str) -> Range:
    """Read ``name=value,value``, ``name=log:low:high:count`` or ``name=linear:low:high:count``, the count optional."""
    advice = f"--sweep takes name=values, such as mas.strength=0.01,0.1 or mas.strength=log:1e-3:1e3:7; got {text!r}"
    name, values = name_and_value(text, advice)
    scale, *numbers = values.split(":")
    if scale not in SCALES:
        parts = [part.strip() for part in re.split(r",(?![^(]*\))", values)]  # at commas outside tuples
        try:
            read = tuple(dict.fromkeys(map(read_value, parts)))
        except TypeError:
            raise ExperimentError(f"{advice}: values are numbers, words or tuples") from None
        if "" in read:
            raise ExperimentError(f"{advice}: a value is missing")
        return Range(name, read)
    try:
        low, high = map(float, numbers[:2])
        counts = list(map(int, numbers[2:]))
    except ValueError:
        raise ExperimentError(advice) from None
    if len(counts) > 1 or not -math.inf < low < high < math.inf or (scale == "log" and low <= 0):
        raise ExperimentError(f"{advice}: the ends must be finite and in order, and above 0 on a log scale")
    if not counts:
        return Range(name, (low, high), scale)
    if not 2 <= counts[0] <= MAX_SETTINGS:
        raise ExperimentError(f"{advice}: a range has from 2 to {MAX_SETTINGS} values")
    import numpy

    spaced = numpy.geomspace if scale == "log" else numpy.linspace
    return Range(name, tuple(map(_short, spaced(low, high, counts[0]))))


def _short(value: float) -> float:
    return float(f"{value:.4g}")  # names of folders and labels have it


@dataclass(frozen=True)
class Chosen:
    """What is run in the end, and what came of a sweep before."""

    experiment: Experiment  # with the chosen settings
    methods: Sequence[Method]  # of it, which are run: those that were swept
    candidates: Sequence[Method] = ()  # all that were tried
    published: Mapping[str, dict[str, Any]] = field(default_factory=dict)  # the script's values by method and parameter
    text: str = ""  # the choice, as ``--set @FILE`` reads it
    problem: str = ""  # which methods nothing could be chosen for, and why


@dataclass(frozen=True)
class Sweep:
    """Chooses parameters of methods by their accuracy on validation data, tasks equally weighted.

    Of the settings without a trial that diverged or failed, the one with the highest mean over the seeds is chosen, the
    first of several. Test accuracies decide nothing. A sweep that was interrupted resumes, for finished
    trials are not run again, and the same settings are drawn.
    """

    experiment: Experiment
    ranges: Sequence[Range]
    launch: Callable[[Sequence[Trial]], None]  # runs those trials that are not finished, and writes their results
    root: Path  # of results
    drawn: int | None = None  # settings of each method, by Optuna; None: all combinations
    seeds: Sequence[int] = (0,)  # that settings are compared by
    at_once: int = 1  # settings that Optuna draws before it is told how they did

    def __post_init__(self) -> None:
        open_ends = [range_.name for range_ in self.ranges if range_.scale]
        if self.drawn is None and open_ends:
            raise ExperimentError(
                f"--sweep does not say how many values of {', '.join(open_ends)}: write log:LOW:HIGH:COUNT, or draw "
                "from the range with --sweep-trials"
            )

    def run(self) -> Chosen:
        """Try settings and choose; an ExperimentError where a parameter does not exist or is set already."""
        tried: dict[str, list[Method]] = {}
        for name, ranges in self._by_method().items():
            if self.drawn is not None:
                tried[name] = self._draw(name, ranges, self.drawn)
                continue
            grid = product(*([(range_.name, value) for value in range_.values] for range_ in ranges))
            tried[name] = [self._candidate(name, dict(settings)) for settings in grid]
        candidates = [method for methods in tried.values() for method in methods]
        if self.drawn is None:
            self.launch([Trial(self.experiment, method, seed) for seed in self.seeds for method in candidates])
        return self._choose(tried, candidates)

    def _by_method(self) -> dict[str, list[Range]]:
        """Sort the parameters by the methods that have them."""
        found: dict[str, list[Range]] = {}
        for range_ in self.ranges:
            method = method_of(self.experiment, range_.name)
            if method is None:
                names = [method.base_name for method in self.experiment.methods]
                raise ExperimentError(
                    f"cannot sweep {range_.name!r}{did_you_mean(range_.name.split('.')[0], names)}; give a parameter "
                    f"of a method, such as mas.strength or mas.optimizer.lr; the methods are: {', '.join(names)}"
                )
            path = range_.name.removeprefix(f"{method.base_name}.")
            if path in dict(method.settings):
                raise ExperimentError(f"--set gives {range_.name} a value, and --sweep others; leave out one of them")
            found.setdefault(method.name, []).append(range_)
        for name, ranges in found.items():
            count = math.prod(len(range_.values) for range_ in ranges)
            if count > MAX_SETTINGS:
                raise ExperimentError(
                    f"--sweep asks for {count} settings of {name}; at most {MAX_SETTINGS} can be tried"
                )
            self._candidate(name, {range_.name: range_.values[0] for range_ in ranges})  # before anything is run
        return found

    def _candidate(self, name: str, settings: Mapping[str, Any]) -> Method:
        return candidate(self.experiment, self.experiment.method(name), settings)

    def _score(self, method: Method, count: int | None = None) -> float:
        """Average the validation accuracy over the first seeds; -inf where a trial is missing, diverged or has none."""
        found = []
        for seed in self.seeds[:count]:
            trial = store.read_trial(self.root / Trial(self.experiment, method, seed).file)
            accuracy = (trial or {}).get("validation_accuracy")
            found.append(-math.inf if accuracy is None else accuracy)
        return fmean(found)

    def _draw(self, name: str, ranges: Sequence[Range], drawn: int) -> list[Method]:
        """Let Optuna draw settings, see how earlier ones did, and give up on bad ones between seeds."""
        try:
            import optuna
        except ImportError as error:
            missing = "--sweep-trials needs Optuna; install the extra: pip install '.[sweep]' in a clone"
            raise ExperimentError(missing) from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        pruners = optuna.pruners
        pruner = pruners.MedianPruner(n_startup_trials=4) if len(self.seeds) > 1 else pruners.NopPruner()
        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0), pruner=pruner)
        found: dict[str, Method] = {}
        while len(study.trials) < drawn:
            # Those of a batch are drawn before Optuna hears how any of them did.
            asked = [study.ask() for _ in range(min(self.at_once, drawn - len(study.trials)))]
            batch = [(ask, self._candidate(name, {r.name: _suggest(ask, r) for r in ranges})) for ask in asked]
            found |= {method.name: method for _, method in batch}
            for count, seed in enumerate(self.seeds, 1):  # all of the batch with one seed, the promising with the next
                self.launch([Trial(self.experiment, method, seed) for _, method in batch])
                promising = []
                for ask, method in batch:
                    score = max(self._score(method, count), 0.0)  # diverged: as bad as can be
                    ask.report(score, count)
                    if count == len(self.seeds):
                        study.tell(ask, score)
                    elif ask.should_prune():
                        study.tell(ask, state=optuna.trial.TrialState.PRUNED)
                    else:
                        promising.append((ask, method))
                batch = promising
        return list(found.values())

    def _choose(self, tried: Mapping[str, Sequence[Method]], candidates: list[Method]) -> Chosen:
        """Put the best candidates in the place of their methods."""
        script, changes, lines = self.experiment, list(self.experiment.changes), []
        winners: dict[str, Method] = {}
        published, hopeless = {}, []
        for name, methods in tried.items():
            best, before = max(methods, key=self._score), script.method(name)
            score = self._score(best)
            published[name] = {path: value_of(script, before, path) for path, _ in best.settings}
            if score == -math.inf:
                hopeless.append(name)
                continue
            winners[name] = replace(best, name=name, candidate_of="")
            new = [setting for setting in best.settings if setting not in before.settings]
            changes += [(f"{best.base_name}.{path}", "swept") for path, _ in new]
            seeds = f"seed{'s' * (len(self.seeds) > 1)} {', '.join(map(str, self.seeds))}"
            found = f"{100 * score:.2f} % on validation data, the best of {len(methods)}; {seeds}"
            lines.append(f"# {script.name}: {found}")
            lines += [f"{best.base_name}.{path} = {value!r}" for path, value in best.settings]
        kept = tuple(winners.get(method.name, method) for method in script.methods)
        changed = replace(script, methods=kept, changes=tuple(changes))
        problem = (
            f"no setting of {', '.join(hopeless)} can be chosen: each has trials that diverged, failed or have no "
            "validation data"
        )
        text = "\n".join(lines) + "\n" if lines else ""
        return Chosen(changed, list(winners.values()), candidates, published, text, problem if hopeless else "")


def candidate(experiment: Experiment, method: Method, settings: Mapping[str, Any]) -> Method:
    """Give a method other parameters, such as ``{"mas.strength": 0.1}``, as one of those to choose among."""
    changed = method
    for name, value in settings.items():
        changed = changed_method(experiment, changed, name, value)
    return replace(changed, candidate_of=method.name)


def _suggest(ask: Any, range_: Range) -> Any:
    """Let Optuna draw a value."""
    if not range_.scale:
        return range_.values[ask.suggest_int(range_.name, 0, len(range_.values) - 1)]
    low, high = range_.values
    return _short(ask.suggest_float(range_.name, low, high, log=range_.scale == "log"))
