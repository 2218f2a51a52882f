import copy
import inspect
import io
import pickle

import numpy as np
import pytest
import torch
from oracles import importance as oracle_importance
from oracles.hebbian import dhp_forward
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

import avsi.hebbian
from avsi import fisher_diagonal, mas_importance
from avsi.hebbian import show_targets
from avsi.importance import CLOSED_FORMS
from avsi.models import DHPLinear, MatchedLinear


def make(features=7, classes=5, *, dtype=torch.float64, seed=0, **arguments):
    torch.manual_seed(seed)
    layer = DHPLinear(features, classes, dtype=dtype, **arguments)
    with torch.no_grad():
        layer.alpha.mul_(100)  # so that what goes through the traces weighs as much as the rest
    return layer


def batch(size=16, features=7, classes=5, *, dtype=torch.float64, labels=None):
    labels = list(range(classes)) if labels is None else labels
    h = torch.randn(size, features, dtype=dtype, requires_grad=True)
    return h, torch.tensor(labels)[torch.randint(len(labels), (size,))]


def transposed(layer):
    """The parameters as the paper writes them, one column per class."""
    return {n: (p.detach().T if p.dim() else p.detach()).clone().requires_grad_() for n, p in layer.named_parameters()}


# Algorithm 1


@pytest.mark.parametrize("per_connection", [False, True])
@pytest.mark.parametrize(("features", "classes", "size"), [(7, 5, 16), (12, 100, 64), (3, 1, 1)])
def test_equals_algorithm_1_step_by_step(per_connection, features, classes, size):
    layer = make(features, classes, eta=0.3, per_connection_eta=per_connection)
    hebb = torch.zeros(features, classes, dtype=torch.float64)
    present = set()
    for step in range(50):
        labels = torch.randperm(classes)[: 1 + step % classes].tolist()
        h, y = batch(size, features, classes, labels=labels)
        present.add(len(y.unique()))
        z = layer(h, y)
        their_h = h.detach().clone().requires_grad_()
        theirs = transposed(layer)
        their_z, hebb = dhp_forward(their_h, y, hebb=hebb, **theirs)
        torch.testing.assert_close(z, their_z, rtol=0, atol=1e-12)
        torch.testing.assert_close(layer.hebb, hebb.T, rtol=0, atol=1e-12)

        cotangent = torch.randn_like(z)
        ours = dict(zip(["h", *theirs], torch.autograd.grad(z, [h, *layer.parameters()], cotangent), strict=True))
        expected = torch.autograd.grad(their_z, [their_h, *theirs.values()], cotangent)
        for name, gradient in zip(["h", *theirs], expected, strict=True):
            assert gradient.abs().max() > 0
            theirs_here = gradient if name == "h" or not gradient.dim() else gradient.T
            torch.testing.assert_close(ours[name], theirs_here, rtol=1e-12, atol=1e-12, msg=lambda m, n=name: n + m)
        with torch.no_grad():  # as an optimizer would
            for name, parameter in layer.named_parameters():
                parameter.add_(torch.randn_like(parameter), alpha=1e-3 if name == "eta" else 0.1)
    assert classes == 1 or len(present) > 1
    assert 0 < layer.eta.min() <= layer.eta.max() < 1


def test_gradients_are_those_of_finite_differences():
    layer = make(3, 4, eta=0.3, per_connection_eta=True)
    layer(*batch(6, 3, 4))
    state = layer.hebb.clone()
    h, y = batch(6, 3, 4, labels=[0, 2])

    def forward(h, *parameters):
        layer.hebb.copy_(state)
        return torch.func.functional_call(layer, dict(zip(["weight", "alpha", "eta"], parameters, strict=True)), (h, y))

    parameters = [p.detach().clone().requires_grad_() for p in layer.parameters()]
    torch.autograd.gradcheck(forward, (h, *parameters))


def test_no_graph_reaches_from_one_step_into_the_next():
    layer = make(eta=0.5)
    h, y = batch()
    layer(h, y)
    assert not layer.hebb.requires_grad
    second, y = batch()
    loss = layer(second, y).square().sum()
    assert torch.autograd.grad(loss, h, allow_unused=True)[0] is None


def test_initialisation_is_the_papers():
    torch.manual_seed(0)
    layer = DHPLinear(400, 16)
    assert layer.weight.shape == layer.alpha.shape == layer.hebb.shape == (16, 400)
    assert layer.weight.abs().max() <= 16**-0.5
    assert layer.weight.std().item() == pytest.approx(16**-0.5 / 3**0.5, rel=0.05)
    assert 0 <= layer.alpha.min() <= layer.alpha.max() <= 0.01
    assert layer.alpha.mean().item() == pytest.approx(0.005, rel=0.05)
    assert layer.eta.shape == ()
    assert layer.eta.item() == pytest.approx(1e-3)
    assert (layer.hebb == 0).all()
    per_connection = DHPLinear(400, 16, eta=1e-4, per_connection_eta=True)
    assert per_connection.eta.shape == (16, 400)
    assert per_connection.eta.unique().tolist() == pytest.approx([1e-4])
    assert {n for n, p in layer.named_parameters() if p.requires_grad} == {"weight", "alpha", "eta"}
    assert layer.fast_parameters == ("alpha", "eta")
    assert repr(per_connection) == "DHPLinear(400, 16, eta=0.0001, per_connection_eta=True)"


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (0, ValueError, "must be at least 1"),
        (-1, ValueError, "must be at least 1"),
        (2.0, TypeError, "must be a whole number"),
        (True, TypeError, "must be a whole number"),
    ],
)
def test_bad_sizes(bad, error, message):
    with pytest.raises(error, match=f"in_features {message}"):
        DHPLinear(bad, 2)
    with pytest.raises(error, match=f"out_features {message}"):
        DHPLinear(2, bad)
    with pytest.raises(error, match=f"in_features {message}"):
        MatchedLinear(bad, 2)


def test_numbers_of_every_kind_are_taken():
    layer = DHPLinear(np.int64(3), torch.tensor(2), eta=np.float32(0.5))
    assert layer.weight.shape == (2, 3)
    assert DHPLinear(3, 2, eta=torch.tensor(0.25)).eta.item() == 0.25
    assert MatchedLinear(np.int64(3), torch.tensor(2)).weight.shape == (2, 3)


@pytest.mark.parametrize("bad", [-0.1, 1.1, float("nan"), "0.1", True])
def test_bad_eta(bad):
    with pytest.raises((TypeError, ValueError), match="eta must be a number from 0 to 1"):
        DHPLinear(2, 2, eta=bad)


# Evaluation


def test_evaluation_uses_the_traces_and_leaves_them_alone():
    layer = make(eta=0.5)
    layer(*batch())
    layer.eval()
    hebb = layer.hebb.clone()
    h, y = batch()
    expected = h @ (layer.weight + layer.alpha * hebb).T
    torch.testing.assert_close(layer(h), expected)
    torch.testing.assert_close(layer(h, y), expected)
    assert torch.equal(layer.hebb, hebb)


@pytest.mark.parametrize("training", [False, True])
def test_a_pass_without_labels_can_be_differentiated_after_a_later_update(training):
    layer = make(eta=0.5)
    layer(*batch())
    layer.train(training)
    layer.label_source = avsi.hebbian.LabelSource()
    layer.label_source.active = True
    h, _ = batch()
    (expected,) = torch.autograd.grad(layer(h).square().sum(), layer.alpha)
    early = layer(h).square().sum()
    layer.train()
    layer(*batch())
    assert torch.equal(torch.autograd.grad(early, layer.alpha)[0], expected)


def test_a_layer_saved_in_training_needs_labels_once_it_is_loaded():
    source = avsi.hebbian.LabelSource()
    source.active = True
    layers = nn.ModuleList([make(), make()])
    for layer in layers:
        layer.label_source = source
    loaded = pickle.loads(pickle.dumps(layers))
    with pytest.raises(RuntimeError, match="needs the labels"):
        loaded[0](batch()[0])
    assert loaded[0].label_source is loaded[1].label_source
    assert copy.deepcopy(layers)[0].label_source is source


def test_several_passes_before_one_backward_pass():
    layer = make(eta=0.5)
    batches = [batch(), batch()]
    hebb = torch.zeros(7, 5, dtype=torch.float64)
    loss, expected = 0, 0
    penalty = layer.eta.square()  # a graph that holds eta itself
    theirs = transposed(layer)
    for h, y in batches:
        loss = loss + layer(h, y).square().sum()
        z, hebb = dhp_forward(h, y, hebb=hebb, **theirs)
        expected = expected + z.square().sum()
    gradients = torch.autograd.grad(expected, list(theirs.values()))
    (decay,) = torch.autograd.grad(penalty, layer.eta)
    torch.testing.assert_close(decay, 2 * layer.eta.detach())
    for ours, theirs in zip(torch.autograd.grad(loss, list(layer.parameters())), gradients, strict=True):
        torch.testing.assert_close(ours, theirs.T if theirs.dim() else theirs)


# The range of eta


@pytest.mark.parametrize("per_connection", [False, True])
@pytest.mark.parametrize("unit_features", [False, True])
@pytest.mark.parametrize("constraint", ["none", "sigmoid"])
def test_other_ways_with_eta_equal_algorithm_1_too(per_connection, unit_features, constraint):
    layer = make(eta=0.9, per_connection_eta=per_connection, eta_constraint=constraint, unit_features=unit_features)
    rate = dict(layer.named_parameters())["eta_logit" if constraint == "sigmoid" else "eta"]
    hebb = torch.zeros(7, 5, dtype=torch.float64)
    outside = False
    for _ in range(10):
        with torch.no_grad():
            rate.copy_(2 * torch.randn_like(rate))
        outside |= bool((layer.eta < 0).any() or (layer.eta > 1).any())
        h, y = batch()
        z = layer(h, y)
        their_h, stored = (t.detach().clone().requires_grad_() for t in (h, rate))
        weight, alpha = (p.detach().T.clone().requires_grad_() for p in (layer.weight, layer.alpha))
        eta = 1 / (1 + (-stored).exp()) if constraint == "sigmoid" else stored
        torch.testing.assert_close(layer.eta, eta)
        norm = their_h.square().sum(1, keepdim=True).sqrt() if unit_features else 1
        their_z, hebb = dhp_forward(their_h / norm, y, weight, alpha, eta.T if per_connection else eta, hebb)
        their_z = their_z * norm  # the layer is linear in the features but for its traces
        torch.testing.assert_close(z, their_z)
        torch.testing.assert_close(layer.hebb, hebb.T)
        cotangent = torch.randn_like(z)
        ours = torch.autograd.grad(z, [h, rate, layer.weight, layer.alpha], cotangent)
        theirs = torch.autograd.grad(their_z, [their_h, stored, weight, alpha], cotangent)
        for one, other in zip(ours, (theirs[0], theirs[1], theirs[2].T, theirs[3].T), strict=True):
            assert other.abs().max() > 0
            torch.testing.assert_close(one, other)
    assert outside == (constraint == "none")


@pytest.mark.parametrize("per_connection", [False, True])
def test_a_sigmoids_argument_is_what_is_stored(per_connection):
    layer = make(eta=1e-4, per_connection_eta=per_connection, eta_constraint="sigmoid")
    torch.testing.assert_close(layer.eta, torch.full_like(layer.eta, 1e-4))
    assert layer.eta.shape == ((5, 7) if per_connection else ())
    assert list(dict(layer.named_parameters())) == ["weight", "alpha", "eta_logit"]
    assert set(layer.state_dict()) == {"weight", "alpha", "eta_logit", "hebb"}
    assert layer.fast_parameters == ("alpha", "eta_logit")
    assert DHPLinear.fast_parameters == make().fast_parameters == ("alpha", "eta")
    other = make(eta=0.7, seed=1, per_connection_eta=per_connection, eta_constraint="sigmoid")
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other.eta, layer.eta)
    twin = pickle.loads(pickle.dumps(copy.deepcopy(layer)))
    h, y = batch()
    assert torch.equal(twin(h, y), layer(h, y))
    with pytest.raises(RuntimeError, match="eta_logit"):
        make(per_connection_eta=per_connection).load_state_dict(layer.state_dict())
    assert repr(make(eta_constraint="sigmoid", unit_features=True)) == (
        "DHPLinear(7, 5, eta=0.001, eta_constraint='sigmoid', unit_features=True)"
    )
    assert not hasattr(nn.Module.__new__(DHPLinear), "eta")


def test_unit_features_of_zeros_are_zeros():
    layer = make(eta=0.5, unit_features=True)
    h = torch.zeros(2, 7, dtype=torch.float64, requires_grad=True)
    layer(h, torch.tensor([0, 1])).sum().backward()
    assert (layer.hebb == 0).all()
    assert h.grad.isfinite().all()


@pytest.mark.parametrize("bad", ["clamp", None, True, ["project"]])
def test_bad_constraint(bad):
    with pytest.raises(ValueError, match="eta_constraint must be one of project, none, sigmoid, got"):
        DHPLinear(2, 2, eta_constraint=bad)


@pytest.mark.parametrize("bad", [0, 1.0])
def test_a_sigmoid_never_reaches_its_borders(bad):
    with pytest.raises(ValueError, match=f"between 0 and 1, which it never reaches, got {bad}"):
        DHPLinear(2, 2, eta=bad, eta_constraint="sigmoid")


@pytest.mark.parametrize("name", ["per_connection_eta", "unit_features"])
@pytest.mark.parametrize("bad", ["no", 1, None])
def test_bad_flags(name, bad):
    with pytest.raises(TypeError, match=f"{name} must be True or False, got {bad!r}"):
        DHPLinear(2, 2, **{name: bad})


# Stability


@pytest.mark.parametrize("per_connection", [False, True])
@pytest.mark.parametrize(("start", "border"), [(2.5, 1.0), (-1.5, 0.0)])
def test_eta_outside_its_range_is_projected_and_can_come_back(per_connection, start, border):
    layer = make(per_connection_eta=per_connection)
    limit = 0.0
    for _ in range(200):
        with torch.no_grad():
            layer.eta.fill_(start)
        h, y = batch()
        limit = max(limit, h.abs().max().item())
        layer(h, y).square().sum().backward()
    assert (layer.eta == border).all()
    assert layer.hebb.abs().max() <= limit
    # At the border the gradient is the formula's own, not 0.
    h, y = batch()
    theirs = transposed(layer)
    z, _ = dhp_forward(h, y, hebb=layer.hebb.T.clone(), **theirs)
    (expected,) = torch.autograd.grad(z.square().sum(), theirs["eta"])
    (gradient,) = torch.autograd.grad(layer(h, y).square().sum(), layer.eta)
    assert gradient.abs().max() > 0
    torch.testing.assert_close(gradient, expected.T if per_connection else expected)


@pytest.mark.parametrize("eta", [0.0, 1e-3, 0.5, 1.0])
def test_eta_inside_its_range_is_not_touched(eta):
    layer = make(eta=eta)
    before = layer.eta.clone()
    layer(*batch())
    assert torch.equal(layer.eta, before)


def test_an_optimizer_cannot_make_the_traces_diverge():
    layer = make(eta=0.1)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.5, momentum=0.9)
    outside = False
    for _ in range(300):
        h, y = batch()
        optimizer.zero_grad()
        cross_entropy(layer(h, y), y).backward()
        optimizer.step()
        outside |= not 0 <= layer.eta <= 1
        assert layer.hebb.abs().max() < 10
    assert outside  # or this has shown nothing


# Inputs


def test_without_labels_training_says_what_to_do():
    layer = make()
    with pytest.raises(RuntimeError, match=r"DHPPlugin\(\), or pass them, as in layer\(h, targets\)"):
        layer(batch()[0])
    assert (layer.hebb == 0).all()


@pytest.mark.parametrize("shape", [(7,), (2, 3, 7), (4, 6)])
@pytest.mark.parametrize("training", [False, True])
def test_bad_features(shape, training):
    with pytest.raises(ValueError, match=r"features must have shape \(samples, 7\), got"):
        make().train(training)(torch.zeros(shape, dtype=torch.float64), torch.zeros(shape[0], dtype=torch.long))


@pytest.mark.parametrize(
    ("targets", "error", "message"),
    [
        (torch.tensor([0, 5]), ValueError, "from 0 to 4, got 0 to 5"),
        (torch.tensor([-1, 2]), ValueError, "from 0 to 4, got -1 to 2"),
        (torch.tensor([0, -100]), ValueError, "from 0 to 4, got -100 to 0"),
        (torch.arange(-1, 63) % 64 - 1, ValueError, "from 0 to 4, got -1 to 62"),
        (torch.full((2048,), 5), ValueError, "from 0 to 4, got 5 to 5"),
        (torch.tensor([0]), ValueError, r"shape \(2,\), one class index per sample, got \(1,\)"),
        (torch.tensor([[0], [1]]), ValueError, r"got \(2, 1\)"),
        (torch.tensor([0.0, 1.0]), TypeError, "integers, got a tensor of torch.float32"),
        (torch.tensor([True, False]), TypeError, "torch.bool"),
        ([0, 1], TypeError, r"must be a tensor of class indices, got \[0, 1\]"),
        (torch.zeros(2, dtype=torch.long, device="meta"), ValueError, "targets are on meta, the features on cpu"),
    ],
)
def test_bad_targets(targets, error, message):
    layer = make(eta=0.5)
    with pytest.raises(error, match=message):
        layer(torch.randn(max(2, len(targets)), 7, dtype=torch.float64), targets)
    assert (layer.hebb == 0).all()


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32])
def test_other_integers_are_labels_too(dtype):
    h, y = batch()
    layer, other = make(eta=0.5), make(eta=0.5)
    assert torch.equal(layer(h, y), other(h, y.to(dtype)))
    assert torch.equal(layer.hebb, other.hebb)


def test_empty_batch():
    layer = make(eta=0.5)
    layer(*batch())
    hebb = layer.hebb.clone()
    assert layer(torch.zeros(0, 7, dtype=torch.float64), torch.zeros(0, dtype=torch.long)).shape == (0, 5)
    assert torch.equal(layer.hebb, hebb)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("low", [False, True])
def test_features_that_are_not_finite(value, low):
    layer = make(dtype=torch.float32, eta=0.5)
    h, y = batch(dtype=torch.float32)
    layer(h, y)
    hebb = layer.hebb.clone()
    h = h.detach().clone()
    h[[3, 5], 2] = value
    message = rf"features of 2 of 16 samples are not finite \(sample 3, feature 2: {value}\).*lower the learning rate"
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=low), pytest.raises(FloatingPointError, match=message):
        layer(h.bfloat16() if low else h, y)
    assert torch.equal(layer.hebb, hebb)
    layer.eval()
    assert not layer(h)[3].isfinite().any()  # evaluation leaves the traces alone, and says what it finds
    assert layer(h)[4].isfinite().all()


def test_large_features_are_none_of_the_layers_business():
    layer = make(dtype=torch.float32)
    h, y = batch(dtype=torch.float32)
    assert not layer(h * 1e38, y).isfinite().all()
    assert layer.hebb.isfinite().all()


def test_traces_that_met_such_features_show_it_ever_after():
    """This is where they are found on a GPU, which is not asked in every step."""
    layer = make()
    for value in (float("nan"), float("inf")):
        with torch.no_grad():
            layer.hebb[1, 2] = value
            for _ in range(10):
                h, y = batch(labels=[0, 1])
                layer(h, y)
            assert not layer.hebb[1, 2].isfinite()


def test_a_failed_pass_leaves_the_traces_alone():
    layer = make(eta=0.5)
    with pytest.raises(RuntimeError, match="dtype"):
        layer(torch.randn(2, 7), torch.tensor([0, 1]))  # float32, the layer is float64
    assert (layer.hebb == 0).all()


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing_is_refused(reentrant):
    """The part computed again would begin with the traces that the first pass has moved."""
    layer = make()
    h, y = batch(labels=[0, 1])
    outputs = checkpoint(layer, h.requires_grad_(), y, use_reentrant=reentrant)
    with pytest.raises(RuntimeError, match="leave it out of the part of the model under activation checkpointing"):
        outputs.sum().backward()


# Showing labels


def test_shown_labels_are_as_good_as_passed_ones():
    layer, other = make(eta=0.5), make(eta=0.5)
    model = nn.Sequential(nn.Identity(), other)
    h, y = batch()
    with show_targets(model, y):
        shown = model(h)
    assert torch.equal(shown, layer(h, y))
    assert torch.equal(layer.hebb, other.hebb)
    with pytest.raises(RuntimeError, match="DHPPlugin"):
        model(h)


def test_labels_shown_within_others_give_way_to_these():
    layer, other = make(eta=0.5), make(eta=0.5)
    h, y = batch()
    with show_targets(layer, y):
        with show_targets(layer, y.flip(0)):
            layer(h)
        layer(h)
    other(h, y.flip(0))
    other(h, y)
    assert torch.equal(layer.hebb, other.hebb)


def test_shown_labels_are_taken_away_after_an_error():
    layer = make()
    with pytest.raises(KeyError), show_targets(layer, batch()[1]):
        raise KeyError
    with pytest.raises(RuntimeError, match="DHPPlugin"):
        layer(batch()[0])


# PyTorch


def test_autocast_keeps_traces_in_full_precision():
    layer, other = make(dtype=torch.float32, eta=0.5), make(dtype=torch.float32, eta=0.5)
    for _ in range(5):
        h, y = batch(dtype=torch.float32)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            z = layer(h.bfloat16(), y)
        assert z.dtype == torch.bfloat16
        cross_entropy(z.float(), y).backward()
        expected = other(h.bfloat16().float(), y)
        torch.testing.assert_close(z.float(), expected, rtol=0.05, atol=0.1)
        torch.testing.assert_close(layer.hebb, other.hebb)
    assert layer.hebb.dtype == torch.float32
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in layer.parameters())


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"per_connection_eta": True},
        {"eta_constraint": "sigmoid", "unit_features": True},
        {"eta_constraint": "none"},
    ],
)
@pytest.mark.parametrize("backend", ["eager", "aot_eager_decomp_partition"])  # inductor but for its code
def test_compiled_without_graph_breaks(backend, arguments):
    torch.compiler.reset()
    layer = make(eta=0.5, **arguments)
    other = copy.deepcopy(layer)
    compiled = torch.compile(layer, backend=backend, fullgraph=True)
    for _ in range(4):
        h, y = batch()
        ours, theirs = compiled(h, y), other(h, y)
        torch.testing.assert_close(ours, theirs)
        torch.testing.assert_close(layer.hebb, other.hebb)
        for a, b in zip(
            torch.autograd.grad(ours.square().sum(), [h, *layer.parameters()]),
            torch.autograd.grad(theirs.square().sum(), [h, *other.parameters()]),
            strict=True,
        ):
            torch.testing.assert_close(a, b)
    compiled.eval()
    hebb = layer.hebb.clone()
    torch.testing.assert_close(compiled(h), other.eval()(h))
    assert torch.equal(layer.hebb, hebb)


def test_compiled_models_see_the_labels_of_each_batch():
    torch.compiler.reset()
    layer = make(eta=0.5)
    other = copy.deepcopy(layer)
    compiled = torch.compile(nn.Sequential(nn.Identity(), layer), backend="aot_eager")
    for _ in range(4):
        h, y = batch()
        with show_targets(compiled, y):
            z = compiled(h)
        torch.testing.assert_close(z, other(h, y))
        torch.testing.assert_close(layer.hebb, other.hebb)


def test_copies_are_independent_and_states_carry_traces():
    layer = make(eta=0.5)
    layer(*batch())
    twin = copy.deepcopy(layer)
    stored = io.BytesIO()
    torch.save(layer.state_dict(), stored)
    stored.seek(0)
    state = torch.load(stored, weights_only=True)
    assert set(state) == {"weight", "alpha", "eta", "hebb"}
    loaded = make(seed=1)
    loaded.load_state_dict(state)
    h, y = batch()
    expected = layer(h, y)
    for other in (twin, loaded):
        assert not torch.equal(other.hebb, layer.hebb)
        assert torch.equal(other(h, y), expected)
        assert torch.equal(other.hebb, layer.hebb)


def test_moves_to_other_types_and_devices():
    layer = make(eta=0.5).to(torch.float32)
    assert layer.hebb.dtype == layer.eta.dtype == torch.float32
    layer(*batch(dtype=torch.float32))
    moved = make().to("meta")
    assert moved.hebb.is_meta
    assert moved(torch.zeros(3, 7, device="meta", dtype=torch.float64), torch.zeros(3, device="meta").long()).is_meta


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("per_connection", [False, True])
def test_cuda_without_synchronisation(per_connection):
    layer = make(eta=0.5, per_connection_eta=per_connection)
    other = copy.deepcopy(layer).cuda()
    for _ in range(5):
        h, y = batch()
        there, labels = h.detach().cuda().requires_grad_(), y.cuda()
        torch.cuda.set_sync_debug_mode("error")
        try:
            z = other(there, labels)
            gradients = torch.autograd.grad(z.square().sum(), [there, *other.parameters()])
        finally:
            torch.cuda.set_sync_debug_mode("default")
        expected = layer(h, y)
        torch.testing.assert_close(z.cpu(), expected)
        torch.testing.assert_close(other.hebb.cpu(), layer.hebb)
        for a, b in zip(gradients, torch.autograd.grad(expected.square().sum(), [h, *layer.parameters()]), strict=True):
            torch.testing.assert_close(a.cpu(), b)


def test_the_layers_module_does_not_need_avalanche():
    assert "import avalanche" not in inspect.getsource(avsi.hebbian)
    assert "from avalanche" not in inspect.getsource(avsi.hebbian)


# Importances


def model_with(head, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), head(8, 4)).double()


@pytest.mark.parametrize("per_connection", [False, True])
@pytest.mark.parametrize("measure", ["empirical", "exact", "mas"])
def test_importances_of_a_dhp_layer(measure, per_connection):
    model = model_with(lambda m, d: DHPLinear(m, d, eta=0.5, per_connection_eta=per_connection))
    with torch.no_grad():
        model[2].alpha.mul_(100)
    x, y = torch.randn(20, 6, dtype=torch.float64), torch.randint(4, (20,))
    with show_targets(model, y):
        model(x)
    hebb, training = model[2].hebb.clone(), model.training
    data = [(x[:13], y[:13]), (x[13:], y[13:])]
    names = ["0.weight", "2.weight", "2.alpha"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("avsi.importance.per_sample.PerSampleSums._add_vectorised", lambda *_: pytest.fail("slow path"))
        if measure == "mas":
            ours = mas_importance(model, data, parameters=names)
            weight_alone = mas_importance(model, data, parameters=["2.weight"])
        else:
            ours = fisher_diagonal(model, data, labels=measure, parameters=names)
            weight_alone = fisher_diagonal(model, data, labels=measure, parameters=["2.weight"])
    assert torch.equal(model[2].hebb, hebb)
    assert model.training == training
    if measure == "mas":
        expected = oracle_importance.mas(model, data, names)
    else:
        expected = oracle_importance.fisher(model, data, measure, names)
    assert torch.equal(model[2].hebb, hebb)
    for name in names:
        assert expected[name].max() > 0
        torch.testing.assert_close(ours[name], expected[name])
    torch.testing.assert_close(weight_alone["2.weight"], expected["2.weight"])


def test_all_parameters_of_a_dhp_layer_at_once():
    model = model_with(DHPLinear)
    data = [(torch.randn(5, 6, dtype=torch.float64), torch.randint(4, (5,)))]
    ours = fisher_diagonal(model, data)
    for name, expected in oracle_importance.fisher(model, data, "empirical").items():
        torch.testing.assert_close(ours[name], expected)
    assert (ours["2.eta"] == 0).all()  # evaluation does not depend on it


# The control


def test_the_control_has_the_capacity_of_a_dhp_layer():
    dhp, matched = DHPLinear(40, 10), MatchedLinear(40, 10)
    count = lambda module: sum(p.numel() for p in module.parameters())  # noqa: E731
    assert count(matched) == count(dhp) - 1
    for weight in matched.parameters():
        assert weight.abs().max() <= 10**-0.5
        assert weight.std().item() == pytest.approx(10**-0.5 / 3**0.5, rel=0.1)
    assert not torch.equal(matched.weight, matched.extra_weight)
    h = torch.randn(3, 40)
    torch.testing.assert_close(matched(h), h @ matched.weight.T + h @ matched.extra_weight.T)


@pytest.mark.parametrize("measure", [mas_importance, fisher_diagonal])
def test_importances_of_the_control(measure, monkeypatch):
    model = model_with(MatchedLinear)
    data = [(torch.randn(9, 6, dtype=torch.float64), torch.randint(4, (9,)))]
    monkeypatch.setattr("avsi.importance.per_sample.PerSampleSums._add_vectorised", lambda *_: pytest.fail("slow path"))
    ours = measure(model, data)
    one = measure(model, data, parameters=["2.extra_weight"])
    if measure is mas_importance:
        expected = oracle_importance.mas(model, data)
    else:
        expected = oracle_importance.fisher(model, data, "empirical")
    for name in expected:
        torch.testing.assert_close(ours[name], expected[name])
    torch.testing.assert_close(one["2.extra_weight"], expected["2.extra_weight"])
    assert DHPLinear in CLOSED_FORMS
