import warnings

import pytest
import torch
from avalanche.evaluation.metric_results import MetricValue
from avalanche.evaluation.metrics import accuracy_metrics, bwt_metrics, loss_metrics, timing_metrics
from avalanche.logging import InteractiveLogger, TextLogger
from avalanche.training.plugins import EvaluationPlugin as AvalancheEvaluationPlugin
from avalanche.training.plugins import SupervisedPlugin
from training import naive, seeded_mlp

from avsi.plugins.evaluation import ITERATION, EvaluationPlugin, default_evaluator, silent_evaluator


def run(digits, evaluator, plugins=()):
    model = seeded_mlp()
    strategy = naive(model, torch.optim.SGD(model.parameters(), lr=0.1), list(plugins), evaluator=evaluator)
    for experience in digits.train_stream[:2]:
        strategy.train(experience, eval_streams=[])
        strategy.eval(digits.test_stream[:2])
    return evaluator.get_all_metrics(), [*model.state_dict().values()]


@pytest.mark.parametrize("often", [False, True], ids=["epochs", "every batch"])
def test_values_and_log_are_those_of_avalanche(digits, often, tmp_path):
    outcomes = []
    for kind in (AvalancheEvaluationPlugin, EvaluationPlugin):
        with open(tmp_path / kind.__module__, "w") as log:
            kinds = {"minibatch": often, "epoch": True, "experience": True, "stream": True}
            metrics = [accuracy_metrics(**kinds), loss_metrics(**kinds), bwt_metrics(stream=True)]
            outcomes.append(run(digits, kind(*metrics, loggers=[TextLogger(log)])))
        outcomes[-1] += ((tmp_path / kind.__module__).read_text(),)
    (values, weights, log), (sparing_values, sparing_weights, sparing_log) = outcomes
    assert values == sparing_values
    assert len(values) > 10
    assert all(torch.equal(a, b) for a, b in zip(weights, sparing_weights, strict=True))
    assert log == sparing_log
    assert "Top1_Acc" in log


def test_metrics_that_listen_in_every_batch_are_heard(digits):
    """Timing listens before and after an iteration."""
    values, _ = run(digits, EvaluationPlugin(timing_metrics(minibatch=True)))
    assert len(values["Time_MB/train_phase/train_stream/Task000"][1]) > 4


class Noting(SupervisedPlugin):
    """A metric and a logger that notes when it is called."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def log_metrics(self, values):
        self.calls += [value.name for value in values]


def make_noting(callback):
    return type("Noting", (Noting,), {callback: lambda self, *args, **kwargs: self.calls.append(callback)})()


@pytest.mark.parametrize("callback", ITERATION)
@pytest.mark.parametrize("role", ["metrics", "loggers", "added later", "on the instance"])
def test_every_callback_reaches_those_that_define_it(digits, callback, role):
    listener = make_noting(callback)
    if role == "on the instance":
        listener = Noting()
        setattr(listener, callback, lambda *args, **kwargs: listener.calls.append(callback))
    evaluator = EvaluationPlugin(*[listener] * (role == "metrics"), loggers=[listener] * (role == "loggers"))
    if role in {"added later", "on the instance"}:
        evaluator.metrics.append(listener)
    run(digits, evaluator)
    assert len(listener.calls) >= 4
    assert set(listener.calls) == {callback}


def test_listeners_of_any_make_are_heard(digits):
    calls = []

    class Slotted(Noting):
        __slots__ = ()

        def before_update(self, *args, **kwargs):
            calls.append("slotted")

    class Proxy:
        def __getattr__(self, name):
            if name != "before_forward":
                raise AttributeError(name)
            return lambda *args, **kwargs: calls.append("proxy")

    class Changed(Noting):
        def before_update(self, *args, **kwargs):
            Changed.after_update = lambda *args, **kwargs: calls.append("changed")

    run(digits, EvaluationPlugin(Slotted(), Proxy(), Changed()))
    assert set(calls) == {"slotted", "proxy", "changed"}


def test_nobody_is_called_in_vain(digits, monkeypatch):
    called = []
    monkeypatch.setattr(EvaluationPlugin, "_update_metrics_and_loggers", lambda *args: called.append(args[2]))
    run(digits, EvaluationPlugin(bwt_metrics(stream=True), loggers=[Noting()]))
    assert not {"before_forward", "after_forward", "before_backward", "after_backward", "before_update"} & {*called}
    assert {"before_training", "after_eval_iteration", "after_eval"} <= {*called}


def test_values_published_by_others_are_logged_at_the_next_callback(digits):
    class Publishing(SupervisedPlugin):
        def before_backward(self, strategy, **kwargs):
            strategy.evaluator.publish_metric_value(MetricValue(self, "own", 1.0, 0))

        def after_update(self, strategy, **kwargs):
            assert logger.calls[-1] == "own"
            logger.calls.clear()

    logger = Noting()
    values, _ = run(digits, EvaluationPlugin(loggers=[logger]), [Publishing()])
    assert values["own"][1][0] == 1.0


def test_the_default_is_avalanches():
    evaluator = default_evaluator()
    stock = AvalancheEvaluationPlugin(
        *[
            metrics(minibatch=False, epoch=True, experience=True, stream=True)
            for metrics in (accuracy_metrics, loss_metrics)
        ],
        loggers=[InteractiveLogger()],
    )
    assert [type(m) for m in evaluator.metrics] == [type(m) for m in stock.metrics]
    assert [type(logger) for logger in evaluator.loggers] == [InteractiveLogger]


def test_a_silent_evaluator_is_made_without_a_warning_and_measures():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluator = silent_evaluator(accuracy_metrics(stream=True), collect_all=False)
    assert isinstance(evaluator, EvaluationPlugin)
    assert (len(evaluator.metrics), evaluator.loggers, evaluator.collect_all) == (1, [], False)
    logger = InteractiveLogger()
    assert silent_evaluator(loggers=[logger]).loggers == [logger]
