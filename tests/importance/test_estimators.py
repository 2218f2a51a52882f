"""Importances against the definition, BackPACK and pen and paper; what they leave untouched; what they refuse."""

import random
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from oracles import importance as oracle
from oracles.hessian import hessian_diagonal
from oracles.models_table import CLOSED, OTHERS, MultiHeadNet, build, cast, vectors
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from avsi.importance import (
    CLOSED_FORMS,
    ClosedForm,
    add_linear,
    closed_forms,
    fisher_diagonal,
    mas_importance,
    per_sample,
)
from avsi.importance.estimators import _sampled_scores
from avsi.importance.per_sample import PerSampleSums

TABLE = CLOSED | OTHERS
ESTIMATORS = {
    **{
        labels: (partial(fisher_diagonal, labels=labels), partial(oracle.fisher, labels=labels))
        for labels in ("empirical", "exact", "predicted", "reversed", "gaussian")
    },
    "mas": (mas_importance, oracle.mas),
}

pytestmark = pytest.mark.filterwarnings("ignore:(Using padding='same'|There is a performance drop|Full backward hook)")


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def copied(batches):
    return [tuple(t.clone() for t in batch) for batch in batches]


def rebatched(batches, size):
    columns = [torch.cat(column) for column in zip(*batches, strict=True)]
    return list(zip(*[column.split(size) for column in columns], strict=True))


def relative_error(got: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    assert list(got) == list(expected)
    errors = [0.0]
    for name, value in expected.items():
        assert got[name].shape == value.shape
        scale = value.norm()
        difference = (got[name].double() - value).norm()
        errors.append(float(difference / scale) if scale > 0 else float(difference))
    return max(errors)


# ---------------------------------------------------------------------------------------------- against the definition


@pytest.mark.filterwarnings("ignore:.* cannot be vectorised")
@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_equals_definition(name, estimator):
    estimate, define = ESTIMATORS[estimator]
    model, batches = build(TABLE[name])
    expected = define(model, copied(batches))
    assert all(value.isfinite().all() for value in expected.values())
    assert sum(value.sum() for value in expected.values()) > 0
    assert relative_error(estimate(model, copied(batches)), expected) < 1e-10
    assert relative_error(estimate(model.float(), cast(copied(batches), torch.float32)), expected) < 1e-4


@pytest.mark.filterwarnings("ignore:.* cannot be vectorised")
@pytest.mark.parametrize(
    "name", [name for name in TABLE if name not in {"two positions first", "Embedding of single tokens"}]
)
@pytest.mark.parametrize("estimator", ["empirical", "sampled", "gaussian", "mas"])
def test_independent_of_batch_size(name, estimator):
    estimate = mas_importance if estimator == "mas" else lambda m, b: fisher_diagonal(m, b, labels=estimator)
    model, batches = build(TABLE[name])
    expected = estimate(model, rebatched(batches, 100))
    for size in (1, 2, 3):
        assert relative_error(estimate(model, rebatched(batches, size)), expected) < 1e-10


@pytest.mark.parametrize("name", ["CNN", "Linear on sequences", "vision transformer", "several heads", "Embedding"])
def test_independent_of_workspace(name):
    model, batches = build(TABLE[name])
    for labels in ("empirical", "exact"):
        expected = fisher_diagonal(model, batches, labels=labels)
        for size in (1, 100, 3000):
            assert (
                relative_error(fisher_diagonal(model, batches, labels=labels, workspace_bytes=size), expected) < 1e-10
            )


@pytest.mark.parametrize("tile_bytes", [4, 256, 4096], ids=["rows", "some rows", "whole"])
@pytest.mark.parametrize("name", ["CNN", "CNN of one dimension", "Linear on sequences", "MLP"])
def test_large_products_take_one_sample_at_a_time(name, tile_bytes, monkeypatch):
    """On CPUs, in tiles; large is here what takes more than a byte to a kilobyte."""
    monkeypatch.setattr(closed_forms, "CPU_TILE_BYTES", tile_bytes)
    model, batches = build(TABLE[name])
    for estimate, define in ESTIMATORS.values():
        assert relative_error(estimate(model, batches), define(model, batches)) < 1e-10


@pytest.mark.parametrize("samples", [2, 3])
@pytest.mark.parametrize("name", ["CNN", "Linear on sequences", "several heads", "vision transformer"])
def test_batches_with_large_inputs_are_taken_in_parts(name, samples, monkeypatch):
    """On CPUs."""
    sizes, widest = [], {"CNN": 432, "Linear on sequences": 40, "several heads": 5, "vision transformer": 60}
    forward = PerSampleSums._forward
    monkeypatch.setattr(per_sample, "CPU_INPUT_BYTES", samples * 8 * widest[name])
    monkeypatch.setattr(
        PerSampleSums, "_forward", lambda self, b, **k: sizes.append(len(b.inputs)) or forward(self, b, **k)
    )
    model, batches = build(TABLE[name])
    for estimate, define in ESTIMATORS.values():
        assert relative_error(estimate(model, batches), define(model, batches)) < 1e-10
    assert max(sizes) <= samples
    assert max(sizes) == samples or name == "several heads"  # of which few samples share one


@pytest.mark.parametrize("name", CLOSED)
def test_closed_forms_need_no_other_method(name, monkeypatch):
    monkeypatch.setattr(PerSampleSums, "_add_vectorised", None)
    model, batches = build(CLOSED[name])
    fisher_diagonal(model, batches)


def test_other_parameters_keep_their_closed_forms(monkeypatch):
    general = []
    add = PerSampleSums._add_vectorised
    monkeypatch.setattr(
        PerSampleSums, "_add_vectorised", lambda s, b, o, names: general.extend(names) or add(s, b, o, names)
    )
    expected = {
        "cross-attention": {
            "same.in_proj_weight",
            "same.in_proj_bias",
            *(f"other.{p}" for p in ("in_proj_bias", "bias_k", "bias_v")),
        },
        "added twice": {"twice", "looked_up", "scaled", "placed"},
        "tied autoencoder": {"encoder.weight"},
        "weight shared by two layers": {"embedding.weight"},
        "layer called twice": {"block.weight", "block.bias"},
        "changes in place": {"scale"},
    }
    for name, parameters in expected.items():
        general.clear()
        model, batches = build(OTHERS[name])
        fisher_diagonal(model, batches)
        assert set(general) == parameters, name


@pytest.mark.parametrize("name", ["vision transformer", "TransformerEncoder on positions", "added", "positions"])
def test_single_parameters_are_the_same(name):
    """Of a layer whose weight is not differentiated the graph tells less about its bias."""
    model, batches = build(CLOSED[name])
    expected = fisher_diagonal(model, batches)
    for parameter in expected:
        got = fisher_diagonal(model, batches, parameters=[parameter])
        assert relative_error(got, {parameter: expected[parameter]}) < 1e-10


class Moody(nn.Module):
    """In batches of five samples are not first where the parameter is added."""

    def __init__(self):
        super().__init__()
        self.parameter, self.head = nn.Parameter(torch.randn(4)), nn.Linear(4, 3)

    def forward(self, x):
        x = (x.transpose(0, 1) + self.parameter).transpose(0, 1) if len(x) == 5 else x + self.parameter
        return self.head(torch.tanh(x)).mean(1)


def test_batches_in_which_samples_are_elsewhere_are_noticed():
    model, x, y = Moody().double(), torch.randn(12, 6, 4).double(), torch.arange(12) % 3
    batches = [(x[:7], y[:7]), (x[7:], y[7:])]
    for estimate, define in ESTIMATORS.values():
        assert relative_error(estimate(model, batches), define(model, batches)) < 1e-10


def test_samples_that_are_alike_take_the_general_method(monkeypatch):
    """Places and samples could not be told apart."""
    general = []
    add = PerSampleSums._add_vectorised
    monkeypatch.setattr(
        PerSampleSums, "_add_vectorised", lambda s, b, o, names: general.extend(names) or add(s, b, o, names)
    )
    model, _ = build(CLOSED["TransformerEncoder on positions"])
    batches = [(torch.ones(4, 3, 3).double(), torch.arange(4) % 3), vectors(3, 3, 3)[0]]
    expected = oracle.fisher(model, batches, "empirical")
    assert relative_error(fisher_diagonal(model, batches), expected) < 1e-10
    assert "2.self_attn.out_proj.weight" in general
    assert "0.weight" not in general


def test_checkpointed_layers():
    """What the graph saves is then computed anew by whoever looks at it."""

    class Checkpointed(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

        def forward(self, x):
            return torch.utils.checkpoint.checkpoint(self.module, x, use_reentrant=False)

    model, batches = build(CLOSED["TransformerEncoder"])
    expected = fisher_diagonal(model, batches, labels="exact")
    model[1] = Checkpointed(model[1])
    got = fisher_diagonal(model, batches, labels="exact")
    assert relative_error({k.replace("module.", ""): v for k, v in got.items()}, expected) < 1e-10


def test_no_parameter_gradient_is_formed(monkeypatch):
    asked = []
    grad = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda out, wrt, *a, **k: asked.extend(wrt) or grad(out, wrt, *a, **k))
    model, batches = build(CLOSED["CNN"])
    fisher_diagonal(model, batches)
    assert asked
    assert not any(isinstance(value, nn.Parameter) for value in asked)


def test_without_vectorisation_one_sample_at_a_time():
    model, batches = build(OTHERS["recurrent"])
    with pytest.warns(UserWarning, match=r"LastState cannot be vectorised over samples.*'recurrent.weight_hh_l0'"):
        fisher_diagonal(model, batches)


class Experts(nn.Module):
    """Each sample goes to one of two layers."""

    def __init__(self):
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(4, 3) for _ in range(2))

    def forward(self, x):
        outputs = x.new_zeros(len(x), 3)
        for expert, mine in zip(self.experts, (x[:, 0] > 0, x[:, 0] <= 0), strict=True):
            if mine.any():
                outputs[mine] = expert(x[mine])
        return outputs


@pytest.mark.filterwarnings("ignore:Experts cannot be vectorised")
@pytest.mark.parametrize("names", [None, ["experts.1.weight"]])
def test_parameters_that_some_samples_do_not_use(names):
    model, batches = build((Experts, partial(vectors, 3, 4)))
    expected = oracle.fisher(model, batches, "empirical")
    got = fisher_diagonal(model, batches, parameters=names)
    assert relative_error(got, {name: expected[name] for name in names or expected}) < 1e-10


def test_new_layer_types_register(monkeypatch):
    class Plastic(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.alpha = nn.Parameter(torch.randn(3, 5)), nn.Parameter(torch.randn(3, 5))
            self.register_buffer("hebb", torch.randn(3, 5))

        def forward(self, h, targets=None):
            return h @ (self.weight + self.alpha * self.hebb).T

    monkeypatch.setitem(CLOSED_FORMS, Plastic, ClosedForm(add_linear, ("weight",)))
    model, batches = build(
        (lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), Plastic()), lambda: build(CLOSED["MLP"])[1])
    )
    batches = [(x[:, :4], y) for x, y in batches]
    assert relative_error(fisher_diagonal(model, batches), oracle.fisher(model, batches, "empirical")) < 1e-10
    monkeypatch.setattr(PerSampleSums, "_add_vectorised", None)
    assert list(fisher_diagonal(model, batches, parameters=["2.weight"])) == ["2.weight"]


# --------------------------------------------------------------------------------------------------- against BackPACK


@pytest.mark.parametrize("name", ["MLP", "CNN"])
def test_equals_backpack(name):
    backpack = pytest.importorskip("backpack")
    from backpack.extensions import BatchGrad, DiagGGNExact

    make = {
        "MLP": lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)),
        "CNN": lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(4, 4, 3, dilation=2, groups=2),
            nn.Sigmoid(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(16, 3),
        ),
    }[name]
    model, batches = build((make, TABLE[name][1]))
    ((x, y),) = rebatched(batches, 100)
    twin = backpack.extend(make().double())
    twin.load_state_dict(model.state_dict())
    # BatchGrad: per-sample gradients of a mean over samples
    loss = backpack.extend(nn.CrossEntropyLoss(reduction="sum"))(twin(x), y)
    with backpack.backpack(BatchGrad(), DiagGGNExact()):
        loss.backward()
    empirical = {name: p.grad_batch.square().mean(0) for name, p in twin.named_parameters()}
    exact = {name: p.diag_ggn_exact / len(x) for name, p in twin.named_parameters()}
    twin.zero_grad()
    with backpack.backpack(BatchGrad()):
        twin(x).square().sum().backward()
    mas = {name: p.grad_batch.abs().mean(0) for name, p in twin.named_parameters()}
    assert relative_error(fisher_diagonal(model, batches), empirical) < 1e-10
    assert relative_error(fisher_diagonal(model, batches, labels="exact"), exact) < 1e-10
    assert relative_error(mas_importance(model, batches), mas) < 1e-10


# ------------------------------------------------------------------------------------------------------ pen and paper


def softmax_regression(samples=50):
    model = nn.Linear(4, 3).double()
    x = torch.randn(samples, 4).double()
    return model, x, model(x).softmax(1).detach()


def test_softmax_regression_has_its_closed_form():
    model, x, p = softmax_regression()
    fisher = fisher_diagonal(model, [(x, None)], labels="exact")
    torch.testing.assert_close(fisher["weight"], (p * (1 - p)).T @ x.square() / len(x), rtol=1e-12, atol=0)
    torch.testing.assert_close(fisher["bias"], (p * (1 - p)).mean(0), rtol=1e-12, atol=0)


def test_squared_norm_of_a_linear_layer_has_its_closed_form():
    model, x, _ = softmax_regression()
    importance = mas_importance(model, [(x, None)])
    expected = torch.einsum("no,ni->oi", (2 * model(x)).abs(), x.abs()) / len(x)
    torch.testing.assert_close(importance["weight"], expected.detach(), rtol=1e-12, atol=0)


def test_exact_is_the_expectation_over_labels():
    model, batches = build(CLOSED["CNN"])
    ((x, _),) = rebatched(batches, 100)
    p = model.eval()(x).softmax(1).detach()
    expected = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    for n in range(len(x)):
        for label in range(3):
            fisher = fisher_diagonal(model, [(x[n : n + 1], torch.tensor([label]))])
            for name, value in fisher.items():
                expected[name] += p[n, label] * value / len(x)
    assert relative_error(fisher_diagonal(model, batches, labels="exact"), expected) < 1e-10


def hessian_by_autograd(model, batches, name):
    x, y = (torch.cat(column) for column in zip(*batches, strict=True))
    parameters = {key: value.detach() for key, value in model.named_parameters()}

    def loss(value):
        outputs = torch.func.functional_call(model, parameters | {name: value}, x)
        return nn.functional.cross_entropy(outputs, y)

    size = parameters[name].numel()
    return torch.autograd.functional.hessian(loss, parameters[name]).view(size, size).diagonal()


@pytest.mark.parametrize("nonlinearity", [nn.ReLU, nn.Tanh])
def test_exact_is_the_diagonal_of_the_hessian_where_outputs_are_piecewise_linear(nonlinearity):
    """Each weight then enters the outputs linearly, at least where it is, whatever the fit."""
    model = nn.Sequential(nn.Linear(6, 8), nonlinearity(), nn.Linear(8, 5), nonlinearity(), nn.Linear(5, 3)).double()
    _, batches = build(CLOSED["MLP"])
    fisher = fisher_diagonal(model, batches, labels="exact")
    for name in ("0.weight", "2.bias", "4.weight"):
        expected = hessian_by_autograd(model, batches, name)
        torch.testing.assert_close(hessian_diagonal(model, batches, name, chunk_size=5), expected)
        some = torch.tensor([2, 0])
        torch.testing.assert_close(hessian_diagonal(model, batches, name, some), expected[some])
        same = torch.allclose(fisher[name].flatten(), expected)
        assert same == (nonlinearity is nn.ReLU or name == "4.weight")


def test_squared_gradients_of_batches_are_another_quantity():
    """The oracle is for comparisons: of single samples it is the Fisher information, of larger batches it is not."""
    model, batches = build(CLOSED["MLP"])
    singles = rebatched(batches, 1)
    fisher = fisher_diagonal(model, batches)
    assert relative_error(oracle.batched_fisher(model, singles), fisher) < 1e-10
    assert relative_error(oracle.batched_fisher(model, batches), fisher) > 0.1


def test_predicted_labels_are_the_most_likely_ones():
    model, batches = build(CLOSED["CNN"])
    likely = [(x, model.eval()(x).argmax(1)) for x, _ in batches]
    got = fisher_diagonal(model, [(x, None) for x, _ in batches], labels="predicted")
    assert relative_error(got, fisher_diagonal(model, likely)) < 1e-10


def test_reversed_does_not_vanish_where_the_data_are_fit():
    """With the margin m of a sample: empirical (1 - p)^2 ~ exp(-2m), reversed ~ 1."""
    model = nn.Linear(1, 2, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.0], [20.0]]))
    data = [(torch.ones(1, 1).double(), torch.tensor([1]))]
    assert fisher_diagonal(model, data)["weight"].max() < 1e-16
    expected = torch.full((2, 1), 1 / (1 + np.exp(-20.0)) ** 2, dtype=torch.float64)
    torch.testing.assert_close(fisher_diagonal(model, data, labels="reversed")["weight"], expected)


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_reversed_leaves_out_classes_that_a_head_masks(precision):
    class Masked(nn.Linear):
        def forward(self, x):
            return torch.nn.functional.pad(super().forward(x), (1, 2), value=-1000.0)

    torch.manual_seed(0)
    plain, masked = nn.Linear(4, 3, dtype=precision), Masked(4, 3, dtype=precision)
    masked.load_state_dict(plain.state_dict())
    x, y = torch.randn(20, 4, dtype=precision), torch.randint(3, (20,))
    expected = fisher_diagonal(plain, [(x, y)], labels="reversed")
    torch.testing.assert_close(fisher_diagonal(masked, [(x, y + 1)], labels="reversed"), expected)


def test_reversed_keeps_classes_that_are_improbable_to_the_last_bit():
    """Where the data are fit so well that float32 has no other probability than 0 and 1, the reversed network errs."""
    model = nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.0], [200.0]]))
    data = [(torch.ones(1, 1), torch.tensor([1]))]
    torch.testing.assert_close(fisher_diagonal(model, data, labels="reversed")["weight"], torch.ones(2, 1))


def test_gaussian_is_the_fisher_information_of_regression():
    """For a linear model it is the mean of x^2; and the expectation of the empirical one over y = f(x) + noise."""
    model, x, _ = softmax_regression()
    fisher = fisher_diagonal(model, [(x, torch.randn(50, 3).double())], labels="gaussian")
    torch.testing.assert_close(fisher["weight"], x.square().mean(0).expand(3, 4))
    torch.testing.assert_close(fisher["bias"], torch.ones(3).double())

    mlp, batches = build(CLOSED["MLP"])
    x = batches[0][0]
    jacobian = torch.autograd.functional.jacobian(lambda w: mlp[2:](mlp[1](x @ w.T + mlp[0].bias)), mlp[0].weight)
    noise = torch.randn(20_000, len(x), 3).double()
    scores = torch.einsum("sno,no...->sn...", noise, jacobian)
    expected = scores.square().mean((0, 1))
    got = fisher_diagonal(mlp, [(x, None)], labels="gaussian")["0.weight"]
    torch.testing.assert_close(got, expected, rtol=0.1, atol=1e-3)


def test_one_output_is_regression():
    model, x = nn.Linear(4, 1).double(), torch.randn(5, 4).double()
    assert fisher_diagonal(model, [(x, None)], labels="gaussian")["bias"].item() == pytest.approx(1)
    for labels in ("empirical", "exact", "predicted", "reversed", "sampled"):
        with pytest.raises(ValueError, match=r'single output.*regression choose labels="gaussian".*outputs \(0, z\)'):
            fisher_diagonal(model, [(x, torch.zeros(5, dtype=torch.long))], labels=labels)
    with pytest.raises(TypeError, match=r'for regression choose labels="gaussian"'):
        fisher_diagonal(model, [(x, torch.randn(5, 1).double())])
    mas_importance(model, [(x, None)])


def test_sampled_converges_to_exact():
    model, batches = build(CLOSED["MLP"])
    exact = fisher_diagonal(model, batches, labels="exact")
    ((x, _),) = rebatched(batches, 100)
    errors = []
    for repeats in (100, 10_000):
        sampled = fisher_diagonal(model, [(x.repeat(repeats, 1), None)], labels="sampled")
        errors.append(relative_error(sampled, exact))
    assert errors[1] < 0.02
    assert errors[1] < errors[0] / 3  # a hundred times the samples, a tenth of the error


def test_labels_are_drawn_with_their_probabilities():
    model = nn.Linear(1, 4, bias=False).double()
    p = torch.tensor([0.5, 0.0, 0.3, 0.2], dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(p.log().clamp(min=-1e4).unsqueeze(1))
    x = torch.ones(20_000, 1, dtype=torch.float64)
    fisher = fisher_diagonal(model, [(x, None)], labels="sampled")["weight"].squeeze(1)
    torch.testing.assert_close(fisher, p * (1 - p), rtol=0.05, atol=0)
    assert fisher[1] == 0


def test_a_label_of_probability_0_is_not_drawn_even_by_0():
    (score,) = _sampled_scores(torch.tensor([[-1e4, 0.0]]), torch.zeros(1))
    assert torch.equal(score, torch.zeros(1, 2))  # of the other label, which has probability 1


# --------------------------------------------------------------------------------------------------------- arguments


def test_seed_decides_the_drawn_labels():
    model, batches = build(CLOSED["MLP"])
    one, same, other = (fisher_diagonal(model, batches, labels="sampled", seed=seed)["0.weight"] for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.allclose(one, other)


def test_subset_is_the_mean_over_some_samples_and_independent_of_batches():
    model, batches = build(CLOSED["several heads"])
    got = fisher_diagonal(model, batches, max_samples=4, seed=3)
    for size in (1, 2, 100):
        again = fisher_diagonal(model, iter(rebatched(batches, size)), max_samples=4, seed=3)
        assert relative_error(again, got) < 1e-10
    singles = [fisher_diagonal(model, [batch])["body.weight"] for batch in rebatched(batches, 1)]
    subsets = torch.combinations(torch.arange(len(singles)), 4)
    means = torch.stack(singles)[subsets].mean(1)
    matches = (means - got["body.weight"]).abs().flatten(1).max(1).values < 1e-12
    assert matches.sum() == 1
    assert relative_error(fisher_diagonal(model, batches, max_samples=9), fisher_diagonal(model, batches)) < 1e-10


def test_numbers_of_every_kind_are_taken():
    model, batches = build(CLOSED["MLP"])
    expected = fisher_diagonal(model, batches, max_samples=3, seed=7, workspace_bytes=1000)
    for kind in (np.int64, torch.tensor):
        arguments = {"max_samples": kind(3), "seed": kind(7), "workspace_bytes": kind(1000)}
        assert relative_error(fisher_diagonal(model, batches, **arguments), expected) == 0


def test_subsets_are_uniform():
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.ones_(model.weight)  # importance of sample x is 2 x^2: tells which samples were chosen
    x = torch.tensor([2.0**k for k in range(6)]).double().unsqueeze(1)
    counts = torch.zeros(6)
    for seed in range(600):
        total = int(mas_importance(model, [(x, None)], max_samples=2, seed=seed)["weight"].item())
        chosen = [k for k in range(6) if total >> (2 * k) & 1]
        assert len(chosen) == 2
        counts[chosen] += 1
    assert (counts - 200).abs().max() < 50  # more than four standard deviations


def test_chosen_parameters():
    model, batches = build(CLOSED["frozen parameters"])
    everything = dict.fromkeys(name for name, _ in model.named_parameters())
    default = fisher_diagonal(model, batches)
    assert list(default) == ["0.bias", "4.weight"]
    chosen = fisher_diagonal(model, batches, parameters=everything)
    assert list(chosen) == list(everything)
    assert relative_error({name: chosen[name] for name in default}, default) < 1e-10
    model.requires_grad_(True)
    assert relative_error(chosen, oracle.fisher(model, batches, "empirical")) < 1e-10
    assert fisher_diagonal(model.requires_grad_(False), batches) == {}


def test_other_tasks_parameters_get_zeros():
    model, batches = build(CLOSED["several heads"])
    only = [(x[t == 1], y[t == 1], t[t == 1]) for x, y, t in batches]
    fisher = fisher_diagonal(model, only)
    assert fisher["heads.1.weight"].any()
    assert not fisher["heads.0.weight"].any()
    assert not fisher["heads.2.bias"].any()
    by_number = fisher_diagonal(model, [(x, y, 1) for x, y, _ in only])
    assert relative_error(by_number, fisher) < 1e-10


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", ["CNN", "vision transformer"])
def test_works_where_gradients_are_off(context, name):
    model, batches = build(TABLE[name])
    expected = fisher_diagonal(model, batches)
    with context():
        assert relative_error(fisher_diagonal(model, copied(batches)), expected) < 1e-10


def test_works_under_autocast():
    model, batches = build(CLOSED["CNN"])
    model, batches = model.float(), cast(batches, torch.float32)
    expected = fisher_diagonal(model, batches)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert relative_error(fisher_diagonal(model, batches), {k: v.double() for k, v in expected.items()}) < 1e-6


class Autocast(nn.Module):
    """Enters autocast in its own forward pass, and may give its outputs back in full precision."""

    def __init__(self, model, full=False):
        super().__init__()
        self.model, self.full = model.float(), full

    def forward(self, *args):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            outputs = self.model(*args)
        return outputs.float() if self.full else outputs


class Decorated(Autocast):
    """The same, set up once and for all: it keeps its casts of weights as long as the caller is in autocast too."""

    forward = torch.autocast("cpu", dtype=torch.bfloat16)(lambda self, *args: self.model(*args))


IN_AUTOCAST = [
    "MLP",
    "CNN",
    "Linear on sequences",
    "Embedding",
    "several heads",
    "vision transformer",
    "tied autoencoder",
    "weight shared by two layers",
    "layer called twice",
    "layers without closed form",
]


@pytest.mark.filterwarnings("ignore:.*cannot be vectorised")  # torch's batching rules for normalisations in autocast
@pytest.mark.parametrize("name", IN_AUTOCAST)
@pytest.mark.parametrize(
    "wrapped", [Autocast, partial(Autocast, full=True), Decorated], ids=["low", "full", "decorated"]
)
def test_works_with_autocast_in_the_model(name, wrapped):
    """Its activations have half of float32's bytes; what is summed has all of them."""
    model, batches = build(TABLE[name])
    double = {estimator: define(model, batches) for estimator, (_, define) in ESTIMATORS.items()}
    model, batches = wrapped(model), cast(batches, torch.float32)
    for estimator, (estimate, define) in ESTIMATORS.items():
        if estimator == "predicted":  # where rounding decides between labels
            continue
        got = estimate(model, batches)
        assert all(value.dtype == torch.float32 for value in got.values())
        expected = define(model, batches)
        assert relative_error(got, {key: value.double() for key, value in expected.items()}) < 0.03
        assert relative_error(got, {f"model.{key}": value for key, value in double[estimator].items()}) < 0.2
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert relative_error(estimate(model, batches), {key: value.double() for key, value in got.items()}) < 1e-6


def test_sums_in_autocast_are_those_of_float32():
    """In bfloat16 a sum of ones stays at 256."""
    model = Autocast(nn.Linear(1, 2, bias=False))
    nn.init.zeros_(model.model.weight)  # so p = 1/2, and F = 1/4
    x, y = torch.ones(5000, 1), torch.zeros(5000, dtype=torch.long)
    for precision in (torch.float32, torch.bfloat16):
        model = model.to(precision)
        for batches in ([(x, y)], rebatched([(x, y)], 100)):
            (fisher,) = fisher_diagonal(model, cast(batches, precision)).values()
            assert fisher.dtype == precision
            torch.testing.assert_close(fisher, torch.full((2, 1), 0.25, dtype=precision))


@pytest.mark.parametrize("name", ["MLP", "CNN", "Linear on sequences", "layer called twice"])
def test_models_in_low_precision(name):
    model, batches = build(TABLE[name])
    model, batches = model.bfloat16(), cast(batches, torch.bfloat16)
    got = fisher_diagonal(model, batches)
    assert all(value.dtype == torch.bfloat16 for value in got.values())
    expected = oracle.fisher(model.double(), cast(batches, torch.float64), "empirical")
    assert relative_error(got, expected) < 0.1


def test_probabilities_are_those_of_float32():
    """In bfloat16, 1 - p is 0 where the margin is 8."""
    model = nn.Linear(1, 2, bias=False).bfloat16()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.0], [8.0]]))
    (fisher,) = fisher_diagonal(model, [(torch.ones(3, 1).bfloat16(), torch.ones(3).long())]).values()
    torch.testing.assert_close(fisher.double(), torch.full((2, 1), (1 + np.exp(8.0)) ** -2).double(), rtol=0.02, atol=0)


def test_weights_that_changed_within_autocast_are_taken_as_they_are():
    model = Decorated(nn.Linear(3, 3))
    x, y = DATA[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(x)  # which keeps a cast of the weight
        with torch.no_grad():
            model.model.weight.add_(1)
        got = fisher_diagonal(model, [(x, y)])
    expected = fisher_diagonal(model, [(x, y)])
    assert all(torch.equal(got[name], value) for name, value in expected.items())


@pytest.mark.parametrize("mixing", ["batch statistics", "without gradient", "neighbours"])
def test_refuses_models_that_mix_samples_in_autocast(mixing):
    x = torch.randn(5, 3) + torch.arange(5).unsqueeze(1)
    with pytest.raises(RuntimeError, match="depends on the other samples of its batch"):
        fisher_diagonal(Autocast(linear_then(MIXING[mixing])), [(x, torch.arange(5) % 3)])


def test_large_products_work_with_autocast_in_the_model(monkeypatch):
    model, batches = build(TABLE["Linear on sequences"])
    model, batches = Autocast(model), cast(batches, torch.float32)
    expected = fisher_diagonal(model, batches)
    monkeypatch.setattr(closed_forms, "CPU_TILE_BYTES", 64)
    got = fisher_diagonal(model, batches)
    assert relative_error(got, {key: value.double() for key, value in expected.items()}) < 1e-6


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_memory_layout_does_not_matter(memory_format):
    model, batches = build(CLOSED["ResNet-18"])
    names = ["conv1.weight", "layer2.0.downsample.0.weight", "layer4.1.conv2.weight", "layer1.0.bn1.weight"]
    expected = oracle.fisher(model, batches, "empirical", names)
    model.to(memory_format=memory_format)
    batches = [(x.to(memory_format=memory_format), y) for x, y in batches]
    assert relative_error(fisher_diagonal(model, batches, parameters=names), expected) < 1e-10


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", [name for name in TABLE if name != "recurrent"])
def test_same_on_an_accelerator(name):
    model, batches = build(TABLE[name])
    estimates = [fisher_diagonal, mas_importance, lambda m, b: fisher_diagonal(m, b, labels="sampled")]
    expected = [estimate(model, copied(batches)) for estimate in estimates]
    state = torch.cuda.get_rng_state_all()
    for estimate, values in zip(estimates, expected, strict=True):
        got = estimate(model.cuda(), copied(batches))  # the batches are moved
        assert relative_error({key: value.cpu() for key, value in got.items()}, values) < 1e-10
    assert all(map(torch.equal, state, torch.cuda.get_rng_state_all()))
    with pytest.raises(ValueError, match="labels must be from 0 to"):
        fisher_diagonal(model, [(x, y + 9, *rest) for x, y, *rest in copied(batches)])


class LargestTensor(TorchDispatchMode):
    """Notes the size of the largest tensor that any operation makes."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, Tensor) and not tensor._is_view():
                LargestTensor.bytes = max(LargestTensor.bytes, tensor.nbytes)
        return out


def test_memory_of_closed_forms_is_bounded():
    model = nn.Sequential(nn.Linear(40, 50), nn.Flatten(), nn.Linear(100, 2)).double()
    x, y = torch.randn(256, 2, 40).double(), torch.randint(2, (256,))
    with LargestTensor():
        LargestTensor.bytes = 0
        fisher_diagonal(model, [(x, y)], workspace_bytes=2**17)
    activations = 256 * 2 * 50 * 8
    assert LargestTensor.bytes <= max(2**17, activations) < 256 * 50 * 40 * 8


def test_memory_of_vectorised_gradients_is_bounded():
    class Raw(nn.Module):
        def __init__(self):
            super().__init__()
            self.matrix = nn.Parameter(torch.randn(50, 40).double() / 40)

        def forward(self, x):
            return x @ torch.tanh(self.matrix).T

    x, y = torch.randn(256, 40).double(), torch.randint(50, (256,))
    with LargestTensor():
        LargestTensor.bytes = 0
        fisher_diagonal(Raw(), [(x, y)], workspace_bytes=2**20)
    assert LargestTensor.bytes <= 2**20 < 256 * 8 * 40 * 50


# ---------------------------------------------------------------------------------------------------- left untouched


class Counting(nn.Module):
    """A layer with state that every call changes, in place and by replacement; fails on demand."""

    def __init__(self, fails_at: int = 100):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("last", torch.zeros(4))
        self.fails_at = fails_at

    def forward(self, x):
        self.calls += 1
        self.last = x.detach()[0, :4].float()
        if self.calls >= self.fails_at:
            raise ArithmeticError("broken layer")
        return x


def fingerprint(model):
    return {
        "training": [module.training for module in model.modules()],
        "requires_grad": [parameter.requires_grad for parameter in model.parameters()],
        "grads": [id(parameter.grad) for parameter in model.parameters()],
        "grad values": [p.grad.tolist() if p.grad is not None else None for p in model.parameters()],
        "parameters": [(id(parameter), parameter.tolist()) for parameter in model.parameters()],
        "buffers": [(id(buffer), buffer.tolist()) for buffer in model.buffers()],
        "hooks": [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()],
        "torch": torch.get_rng_state().tolist(),
        "python": random.getstate(),
        "numpy": np.random.get_state()[1].tolist(),
        "attention": torch.backends.mha.get_fastpath_enabled(),
        "grad mode": torch.is_grad_enabled(),
    }


def used_model(fails_at=100):
    """A model in the middle of training, with one part frozen in evaluation mode."""
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.Dropout(),
        Counting(),
        nn.Flatten(),
        nn.PReLU(),
        nn.Linear(144, 3),
    ).double()
    model(torch.randn(4, 3, 8, 8).double()).square().mean().backward()
    model[1].eval()
    model[0].bias.requires_grad_(False)
    model[6].bias.grad = None
    model[3].calls.zero_()
    model[3].fails_at = fails_at
    return model


def random_batches(count=3):
    for _ in range(count):
        random.random(), np.random.rand()
        yield torch.randn(4, 3, 8, 8).double(), torch.randint(3, (4,))


@pytest.mark.filterwarnings("ignore:Sequential cannot be vectorised")  # because a buffer is changed in place
@pytest.mark.parametrize("parameters", [None, ["0.bias", "5.weight"]])
@pytest.mark.parametrize("estimate", [fisher_diagonal, mas_importance])
def test_leaves_no_traces(estimate, parameters):
    model = used_model()
    before = fingerprint(model)
    estimate(model, random_batches(), parameters=parameters)
    assert fingerprint(model) == before


@pytest.mark.filterwarnings("ignore:Sequential cannot be vectorised")
@pytest.mark.parametrize("fails_at", range(1, 8))
def test_leaves_no_traces_when_the_model_fails(fails_at):
    model = used_model(fails_at)
    before = fingerprint(model)
    with pytest.raises(ArithmeticError, match="broken layer"):
        fisher_diagonal(model, random_batches())
    assert fingerprint(model) == before


@pytest.mark.filterwarnings("ignore:Sequential cannot be vectorised")
def test_leaves_no_traces_when_the_data_fails():
    def failing():
        yield from random_batches(1)
        raise OSError("disk gone")

    model = used_model()
    before = fingerprint(model)
    with pytest.raises(OSError, match="disk gone"):
        fisher_diagonal(model, failing())
    assert fingerprint(model) == before


@pytest.mark.filterwarnings("ignore:.* cannot be vectorised")
@pytest.mark.parametrize("name", OTHERS)
def test_parameters_stay_the_models_own(name):
    model, batches = build(OTHERS[name])
    before = [(name, id(value)) for name, value in model.named_parameters()]
    fisher_diagonal(model, batches)
    assert [(name, id(value)) for name, value in model.named_parameters()] == before


def test_data_are_left_alone():
    model, batches = build(OTHERS["changes in place"])
    before = copied(batches)
    fisher_diagonal(model, batches[:1])
    # the model changes its inputs; the first batch of a task, where this is found out, is a copy
    assert torch.equal(before[0][0], batches[0][0])


# ------------------------------------------------------------------------------------------------------------ errors


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def linear_then(function):
    return nn.Sequential(nn.Linear(3, 3), Function(function), nn.Linear(3, 3))


DATA = [(torch.randn(4, 3), torch.tensor([0, 1, 2, 0]))]

MIXING = {
    "batch statistics": lambda x: (x - x.mean(0)) / (1 + x.var(0)),
    "batch norm function": lambda x: nn.functional.batch_norm(x, None, None, training=True),
    "weakly": lambda x: x + 1e-6 * x.mean(0),
    "without gradient": lambda x: x - x.mean(0).detach(),
    "attention over samples": lambda x: (x @ x.T).softmax(1) @ x,
    "neighbours": lambda x: x + x.roll(1, 0),
}


@pytest.mark.parametrize("mixing", MIXING)
@pytest.mark.parametrize("samples", [3, 4])
def test_refuses_models_that_mix_samples(mixing, samples):
    model = linear_then(MIXING[mixing])
    named = "" if mixing == "weakly" else r" \(first seen at '1', a Function\)"
    with pytest.raises(RuntimeError, match=f"depends on the other samples of its batch{named}"):
        fisher_diagonal(model, [(x[:samples], y[:samples]) for x, y in DATA])


@pytest.mark.parametrize("mixing", MIXING)
def test_refuses_models_that_mix_samples_with_inputs_of_any_size(mixing, monkeypatch):
    """On CPUs a layer's inputs beyond a limit are taken in parts: never in single samples, which show no mixing."""
    monkeypatch.setattr(per_sample, "CPU_INPUT_BYTES", 1)
    with pytest.raises(RuntimeError, match="depends on the other samples of its batch"):
        fisher_diagonal(linear_then(MIXING[mixing]), DATA)


class WithoutBatchFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.recurrent = nn.LSTM(3, 4)

    def forward(self, x):
        return self.recurrent(x.unsqueeze(1).expand(-1, 2, -1))[0][:, -1]


@pytest.mark.parametrize("size", [2, 5])
@pytest.mark.parametrize(
    "mixing",
    [
        WithoutBatchFirst(),
        linear_then(lambda x: x.cumsum(0)),
        linear_then(lambda x: x + torch.linspace(0, 1, 9)[: len(x), None]),
    ],
    ids=["LSTM", "sum", "position"],
)
def test_refuses_models_to_which_a_samples_place_in_the_batch_matters(mixing, size):
    """The first sample's output is as if it were alone."""
    x, y = torch.randn(size, 3), torch.arange(size) % 3
    with pytest.raises(RuntimeError, match="depends on the other samples of its batch or on its place among them"):
        fisher_diagonal(mixing, [(x, y)])


def test_buffers_that_change_past_their_version_are_put_back():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)
            self.register_buffer("calls", torch.zeros(1))

        def forward(self, x):
            self.calls.data += 1
            return self.layer(x)

    model = Counting()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it cannot be vectorised
        fisher_diagonal(model, DATA)
    assert model.calls.item() == 0


def test_batches_of_one_sample_are_evaluated_one_by_one():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])

        def forward(self, x):
            return self.layers[int(x.sum().item() > 0)](x)

    model, batches = Branching().double(), [(x.double(), y) for x, y in rebatched(DATA, 1)]
    assert relative_error(fisher_diagonal(model, batches), oracle.fisher(model, batches, "empirical")) < 1e-10


def test_refuses_models_that_mix_pairs():
    with pytest.raises(RuntimeError, match="depends on the other samples"):
        fisher_diagonal(linear_then(MIXING["batch statistics"]), [(x[:2], y[:2]) for x, y in DATA])


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (
            nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3, track_running_stats=False)),
            ValueError,
            "'1', a BatchNorm1d without",
        ),
        (linear_then(nn.functional.dropout), RuntimeError, "draws random numbers"),
        (nn.Sequential(nn.Linear(3, 3), nn.Unflatten(1, (3, 1))), ValueError, r"shape \(4, classes\), got \(4, 3, 1\)"),
        (nn.Sequential(nn.Linear(3, 3), Function(lambda x: {"logits": x})), ValueError, "got dict"),
        (
            nn.Sequential(nn.Linear(3, 3), Function(torch.detach)),
            RuntimeError,
            "none of the parameters '0.weight', '0.bias' infl",
        ),
        (nn.Sequential(nn.Linear(3, 3), Function(lambda x: x / 0)), ValueError, "outputs are not finite"),
        (
            nn.Sequential(nn.Linear(3, 3), Function(lambda x: 1e30 * x)),
            ValueError,
            "'0.weight'.* is not finite although",
        ),
        (
            linear_then(lambda x: torch.utils.checkpoint.checkpoint(torch.tanh, x, use_reentrant=True)),
            RuntimeError,
            "use_reentrant=False",
        ),
    ],
)
def test_refuses_models_without_exact_importances(model, error, message):
    before = [module.training for module in model.modules()]
    with pytest.raises(error, match=message):
        mas_importance(model, DATA)
    assert [module.training for module in model.modules()] == before


def test_refuses_embeddings_that_renormalise():
    model = nn.Sequential(nn.Embedding(4, 3, max_norm=1.0), nn.Linear(3, 3))
    with pytest.raises(ValueError, match="'0', an Embedding with max_norm"):
        fisher_diagonal(model, [(torch.arange(3), torch.arange(3))])


X, Y = DATA[0]


@pytest.mark.parametrize(
    ("batches", "error", "message"),
    [
        ([], ValueError, "yielded no samples"),
        ([(X[:0], Y[:0])], ValueError, "yielded no samples"),
        ([X], TypeError, r"must yield \(x, y\) or \(x, y, task_labels\), got a Tensor"),
        ([(X,)], TypeError, "got a tuple of length 1"),
        ([(X.tolist(), Y)], TypeError, "inputs of a batch must be a tensor"),
        ([(X, Y.float())], TypeError, "class indices as an integer tensor, got a tensor of torch.float32"),
        ([(X, nn.functional.one_hot(Y))], ValueError, r"shape \(4,\).*got \(4, 3\)"),
        ([(X, None)], TypeError, "got None"),
        ([(X, Y == 0)], TypeError, "torch.bool"),
        ([(X, Y[:3])], ValueError, "4 inputs but 3 labels"),
        ([(X, Y + 1)], ValueError, "labels must be from 0 to 2, the model's outputs, got 1 to 3 in batch 0"),
        ([(X, Y - 1)], ValueError, "got -1 to 1 in batch 0"),
        ([(X, Y, Y[:3])], ValueError, "4 inputs but 3 task labels"),
        ([(X, Y, "a")], TypeError, "task labels must be integers"),
        ([(X, Y, Y.float())], TypeError, "task labels must be integers"),
        ([(torch.full_like(X, torch.nan), Y)], ValueError, "outputs are not finite for some samples in batch 0"),
    ],
)
def test_refuses_bad_data(batches, error, message):
    with pytest.raises(error, match=message):
        fisher_diagonal(nn.Linear(3, 3), batches)


def test_label_out_of_range_names_the_task():
    model = MultiHeadNet()
    with pytest.raises(ValueError, match=r"from 0 to 1, .* got 0 to 2 in batch 0, task 0"):
        fisher_diagonal(model, [(torch.randn(3, 5), torch.tensor([0, 2, 2]), torch.tensor([0, 0, 1]))])


def test_refuses_parameters_without_gradients():
    model = nn.Linear(3, 3)
    model.steps = nn.Parameter(torch.arange(3), requires_grad=False)
    with pytest.raises(ValueError, match="'steps' is not"):
        fisher_diagonal(model, DATA, parameters=["weight", "steps"])


@pytest.mark.parametrize("names", [None, ["phase", "weight"]])
@pytest.mark.parametrize("measure", [fisher_diagonal, mas_importance])
def test_complex_parameters_are_refused(measure, names):
    model = nn.Linear(3, 2)
    model.phase = nn.Parameter(torch.zeros(2, dtype=torch.complex64))
    with pytest.raises(ValueError, match="parameters must be real numbers to have gradients, 'phase' is not"):
        measure(model, DATA, parameters=names)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"labels": "true"},
            ValueError,
            "one of empirical, sampled, exact, predicted, reversed, gaussian, got 'true'",
        ),
        ({"parameters": ["weight", "wieght"]}, ValueError, "no parameters named 'wieght'; it has weight, bias"),
        ({"parameters": "weight"}, TypeError, "put it in a list"),
        ({"max_samples": 0}, ValueError, "max_samples must be at least 1, got 0"),
        ({"max_samples": 1.5}, TypeError, "max_samples must be a whole number, got 1.5"),
        ({"max_samples": "3"}, TypeError, "max_samples must be a whole number, got '3'"),
        ({"workspace_bytes": 0}, ValueError, "workspace_bytes must be at least 1, got 0"),
        ({"seed": 0.5}, TypeError, "seed must be a whole number, got 0.5"),
    ],
)
def test_refuses_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        fisher_diagonal(nn.Linear(3, 3), DATA, **arguments)


def test_warns_about_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("MLP", "ResNet-18", "vision transformer", "TransformerEncoder", "changes in place"):
            model, batches = build(TABLE[name])
            mas_importance(model, batches)
        model, batches = build(TABLE["TransformerEncoder"])  # whose first layer is then free to take its fused path
        mas_importance(model, batches, parameters=["1.layers.1.self_attn.in_proj_weight"])
