"""Sweeps: a method's parameters chosen among many settings, on validation data alone."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

from avsi.experiment.spec import Experiment, ExperimentError, Method, did_you_mean
from avsi.experiment.trial import Trial
from avsi.files import write_text
from avsi.launch.settings import argument, base_name, changed_method, method_of, with_parts
from avsi.results import store

SCALES = ("log", "linear")
MOST = 10_000  # settings of a method

Launch = Callable[[Sequence[Trial]], None]
"""Runs those of some trials that are not finished, and writes their results."""


@dataclass(frozen=True)
class Range:
    """Values of a parameter to choose from.

    Attributes:
        name: The parameter, such as ``mas.strength``.
        values: The values; the two ends where there is no list of them.
        scale: ``log`` or ``linear``, where any value between the ends may be drawn; "" for a list.
    """

    name: str
    values: tuple[Any, ...]
    scale: str = ""


def read_ranges(given: Sequence[str]) -> list[Range]:
    """Read what ``--sweep`` was given.

    Example:
        >>> read_ranges(["mas.strength=0.01,0.1"])
        [Range(name='mas.strength', values=(0.01, 0.1), scale='')]
        >>> read_ranges(["mas.strength=log:1e-3:1e3:4"])[0].values
        (0.001, 0.1, 10.0, 1000.0)
        >>> read_ranges(["si.damping=linear:0.1:1"])
        [Range(name='si.damping', values=(0.1, 1.0), scale='linear')]

    Args:
        given: Each ``name=value,value,...``, ``name=log:low:high:count`` or ``name=linear:low:high:count``, with evenly
            spaced values, or one of these without the count.

    Returns:
        The ranges.

    Raises:
        ExperimentError: If one cannot be read, or a parameter comes twice.
    """
    ranges = [_read_range(text) for text in given]
    names = [range_.name for range_ in ranges]
    for name in names:
        if names.count(name) > 1:
            raise ExperimentError(f"--sweep has {name} twice; give all its values at once")
    return ranges


def _read_range(text: str) -> Range:
    name, equals, values = (part.strip() for part in text.partition("="))
    advice = f"--sweep takes name=values, such as mas.strength=0.01,0.1 or mas.strength=log:1e-3:1e3:7; got {text!r}"
    if not equals or not name or not values:
        raise ExperimentError(advice)
    scale, *numbers = values.split(":")
    if scale not in SCALES:
        try:
            return Range(name, tuple(dict.fromkeys(_values(values))))
        except TypeError:
            raise ExperimentError(f"{advice}: values are numbers, words or tuples") from None
    try:
        low, high, *more = map(float, numbers)
        count = int(numbers[2]) if more else 0
    except ValueError:
        raise ExperimentError(advice) from None
    if len(more) > 1 or not -math.inf < low < high < math.inf or (scale == "log" and low <= 0):
        raise ExperimentError(f"{advice}: the ends must be finite and in order, and above 0 on a log scale")
    if not more:
        return Range(name, (low, high), scale)
    if not 2 <= count <= MOST:
        raise ExperimentError(f"{advice}: a range has from 2 to {MOST} values")
    parts = [step / (count - 1) for step in range(count)]
    if scale == "log":
        return Range(name, tuple(_short(low * (high / low) ** part) for part in parts))
    return Range(name, tuple(_short(low + (high - low) * part) for part in parts))


def _values(text: str) -> tuple[Any, ...]:
    try:
        return tuple(ast.literal_eval(f"({text},)"))
    except (ValueError, SyntaxError):
        return tuple(part.strip() for part in text.split(","))


def _short(value: float) -> float:
    return float(f"{value:.4g}")  # names of folders and labels have it


@dataclass(frozen=True)
class Sweep:
    """What is swept, and how.

    Attributes:
        ranges: The parameters.
        drawn: How many settings of each method are drawn by Optuna; None: all combinations are tried.
        seeds: Seeds of the trials that settings are compared by.
        at_once: How many settings Optuna draws before it is told how they did.
    """

    ranges: Sequence[Range]
    drawn: int | None = None
    seeds: Sequence[int] = (0,)
    at_once: int = 1

    def __post_init__(self) -> None:
        open_ends = [range_.name for range_ in self.ranges if range_.scale]
        if self.drawn is None and open_ends:
            raise ExperimentError(
                f"--sweep does not say how many values of {', '.join(open_ends)}: write log:LOW:HIGH:COUNT, or draw "
                "from the range with --sweep-trials"
            )
        if self.drawn is not None and not 1 <= self.drawn <= MOST:
            raise ExperimentError(f"sweep-trials must be at least 1 and at most {MOST}, got {self.drawn}")


@dataclass(frozen=True)
class Chosen:
    """What came of a sweep.

    Attributes:
        experiment: The experiment with the chosen settings in place of the script's, and all settings tried as
            candidates.
        methods: The methods that were swept, with their chosen settings.
        published: The script's own values of the parameters, by method; None where it leaves one to its default.
    """

    experiment: Experiment
    methods: list[Method]
    published: dict[str, dict[str, Any]] = field(default_factory=dict)


def run_sweep(experiment: Experiment, sweep: Sweep, launch: Launch, root: Path) -> Chosen:
    """Choose parameters of methods by their accuracy on validation data, tasks equally weighted.

    Of the settings without a trial that diverged or failed, the one with the highest mean over the seeds is chosen, the
    first of several. Test accuracies decide nothing. A sweep that was interrupted goes on where it was, for finished
    trials are not run again, and the same settings are drawn.

    Args:
        experiment: The experiment.
        sweep: What is swept.
        launch: Runs trials.
        root: The results folder.

    Returns:
        The choice.

    Raises:
        ExperimentError: If a parameter or a method does not exist, or no setting of a method can be chosen.
    """
    swept = _by_method(experiment, sweep.ranges)
    tried: dict[str, list[Method]] = {}
    if sweep.drawn is None:
        for method, ranges in swept:
            names, grid = [r.name for r in ranges], product(*(r.values for r in ranges))
            settings = [dict(zip(names, values, strict=True)) for values in grid]
            tried[method.name] = [candidate(experiment, method, setting) for setting in settings]
        launch([Trial(experiment, m, seed) for seed in sweep.seeds for methods in tried.values() for m in methods])
    else:
        for method, ranges in swept:
            tried[method.name] = _draw(experiment, method, ranges, sweep, launch, root)
    best = {}
    for name, candidates in tried.items():
        found = {m.name: _score(root, experiment, m, sweep.seeds) for m in candidates}
        whole = {name: score for name, score in found.items() if not math.isnan(score)}
        if not whole:
            raise ExperimentError(
                f"no setting of {name} can be chosen: each has trials that diverged, failed or have no validation data"
            )
        highest = max(whole, key=whole.__getitem__)
        best[name] = next(m for m in candidates if m.name == highest)
    return _chosen(experiment, tried, best)


def _by_method(experiment: Experiment, ranges: Sequence[Range]) -> list[tuple[Method, list[Range]]]:
    found: dict[str, list[Range]] = {}
    for range_ in ranges:
        method = method_of(experiment, range_.name)
        if method is None:
            names = [base_name(m) for m in experiment.methods if not m.candidate_of]
            first = range_.name.split(".")[0]
            raise ExperimentError(
                f"cannot sweep {range_.name!r}{did_you_mean(first, names)}; give a parameter of a method: "
                f"{', '.join(f'{name}.NAME' for name in names)}, such as {names[-1]}.strength or "
                f"{names[-1]}.optimizer.lr"
            )
        found.setdefault(method.name, []).append(range_)
    for name, own in found.items():
        count = math.prod(len(range_.values) for range_ in own)
        if count > MOST:
            raise ExperimentError(f"--sweep asks for {count} settings of {name}; at most {MOST} can be tried")
    return [(experiment.method(name), own) for name, own in found.items()]


def candidate(experiment: Experiment, method: Method, settings: Mapping[str, Any]) -> Method:
    """Give a method other parameters, as one of those to choose among.

    Args:
        experiment: The experiment, whose model and optimizer the method has where it has none of its own.
        method: The method.
        settings: Values by name, such as ``{"mas.strength": 0.1}``.

    Returns:
        The candidate.
    """
    changed = method
    for name, value in settings.items():
        path = name[len(base_name(method)) + 1 :]
        changed = changed_method(with_parts(experiment, changed, path), path, value)
    return replace(changed, candidate_of=method.name)


def _score(root: Path, experiment: Experiment, method: Method, seeds: Sequence[int]) -> float:
    # Mean validation accuracy; nan where a trial is missing, diverged or has none.
    found = []
    for seed in seeds:
        trial = store.read_trial(root / Trial(experiment, method, seed).file)
        accuracy = (trial or {}).get("validation_accuracy")
        found.append(math.nan if accuracy is None else accuracy)
    return fmean(found)


def _draw(
    experiment: Experiment, method: Method, ranges: Sequence[Range], sweep: Sweep, launch: Launch, root: Path
) -> list[Method]:
    # Optuna draws settings, seeing how earlier ones did, and gives up on bad ones between seeds.
    try:
        import optuna
    except ImportError as error:
        raise ExperimentError("--sweep-trials needs Optuna; pip install 'avsi[sweep]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=4) if len(sweep.seeds) > 1 else optuna.pruners.NopPruner()
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0), pruner=pruner)
    found: dict[str, Method] = {}
    while len(study.trials) < (sweep.drawn or 0):
        asked = [study.ask() for _ in range(min(sweep.at_once, (sweep.drawn or 0) - len(study.trials)))]
        drawn = [(ask, candidate(experiment, method, {r.name: _suggest(ask, r) for r in ranges})) for ask in asked]
        found |= {m.name: m for _, m in drawn}
        for count in range(1, len(sweep.seeds) + 1):
            launch([Trial(experiment, m, sweep.seeds[count - 1]) for _, m in drawn])
            going = []
            for ask, m in drawn:
                score = _score(root, experiment, m, sweep.seeds[:count])
                score = 0.0 if math.isnan(score) else score  # diverged: as bad as can be
                ask.report(score, count)
                if count == len(sweep.seeds):
                    study.tell(ask, score)
                elif ask.should_prune():
                    study.tell(ask, state=optuna.trial.TrialState.PRUNED)
                else:
                    going.append((ask, m))
            drawn = going
    return list(found.values())


def _suggest(ask: Any, range_: Range) -> Any:
    if not range_.scale:
        return range_.values[ask.suggest_int(range_.name, 0, len(range_.values) - 1)]
    low, high = range_.values
    return _short(ask.suggest_float(range_.name, low, high, log=range_.scale == "log"))


def _chosen(experiment: Experiment, tried: Mapping[str, Sequence[Method]], best: Mapping[str, Method]) -> Chosen:
    winners = {name: replace(winner, name=name, candidate_of="") for name, winner in best.items()}
    kept = [winners.get(m.name, m) for m in experiment.methods if m.candidate_of not in tried]
    changes = [
        (f"{base_name(winner)}.{path}", "swept")
        for name, winner in best.items()
        for path, value in winner.settings
        if (path, value) not in experiment.method(name).settings
    ]
    changed = replace(
        experiment,
        methods=(*kept, *(m for candidates in tried.values() for m in candidates)),
        changes=(*experiment.changes, *changes),
    )
    published = {
        name: {path: argument(experiment, experiment.method(name), path) for path, _ in winner.settings}
        for name, winner in best.items()
    }
    return Chosen(changed, list(winners.values()), published)


def write_choice(chosen: Chosen, sweep: Sweep, root: Path) -> Path:
    """Write a choice as a file that ``--set @FILE`` reads.

    Args:
        chosen: The choice.
        sweep: The sweep.
        root: The results folder.

    Returns:
        The file, in the experiment's folder.
    """
    experiment, lines = chosen.experiment, []
    for method in chosen.methods:
        tried = sum(m.candidate_of == method.name for m in experiment.methods)
        score = _score(root, experiment, method, sweep.seeds)
        seeds = f"seed{'s' * (len(sweep.seeds) > 1)} {', '.join(map(str, sweep.seeds))}"
        lines.append(f"# {experiment.name}: {100 * score:.2f} % on validation data, the best of {tried}; {seeds}")
        lines += [f"{base_name(method)}.{path} = {value!r}" for path, value in method.settings]
    path = root / experiment.name / f"choice{experiment.suffix}.txt"
    write_text(path, "\n".join(lines) + "\n")
    return path
