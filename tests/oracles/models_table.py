"""A table of small models with data in float64, that between them use every way of computing importances."""

from collections.abc import Callable
from functools import partial

import torch
import torchvision
from torch import Tensor, nn
from torch.nn.functional import linear, relu
from torch.nn.utils.parametrizations import weight_norm

Batches = list[tuple[Tensor, ...]]


class TiedAutoencoder(nn.Module):
    """Classifies from a reconstruction that uses the encoder's weight once more."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(6, 4)
        self.decoder_bias = nn.Parameter(torch.randn(6))
        self.classifier = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        reconstruction = torch.sigmoid(self.encoder(x)) @ self.encoder.weight + self.decoder_bias
        return self.classifier(x - reconstruction)


class SharedWeight(nn.Module):
    """An embedding whose weight is also the output layer's."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.mix = nn.Linear(4, 4)
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.mix(self.embedding(x))).mean(1))


class DetachedTwin(nn.Module):
    """The layer's one call has no gradient, and the one gradient of its weight comes from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.layer(x).detach() + x) @ self.layer.weight


class CalledTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.block, self.last = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.first(x))
        for _ in range(2):
            hidden = torch.tanh(self.block(hidden))
        return self.last(hidden)


def repeated() -> nn.Module:
    """One layer under two names."""
    layer = nn.Linear(6, 6)
    return nn.Sequential(layer, nn.Tanh(), layer, nn.Tanh(), nn.Linear(6, 3))


class MeanOver(nn.Module):
    def __init__(self, dim: int | tuple[int, ...]) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(self.dim)


class PositionsFirst(nn.Module):
    """Rows of the inner layers are positions, not samples."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.inner = nn.Linear(3, 4), nn.Linear(4, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.inner(torch.tanh(self.embed(x)).transpose(0, 1)))
        return self.head(hidden[0])  # only the first position counts: the others' rows have no gradient


class Windows(nn.Module):
    """The inner layer sees positions as samples of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(3, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.inner(x.flatten(0, 1))).unflatten(0, x.shape[:2]).mean(1))


class MultiHeadNet(nn.Module):
    """One head per task, of different sizes; mixed batches only where the sizes agree."""

    def __init__(self, sizes: tuple[int, ...] = (2, 3, 4)) -> None:
        super().__init__()
        self.body = nn.Linear(5, 6)
        self.heads = nn.ModuleList(nn.Linear(6, size) for size in sizes)

    def forward(self, x: Tensor, task_labels: Tensor | int) -> Tensor:
        hidden = torch.tanh(self.body(x))
        if isinstance(task_labels, int):
            return self.heads[task_labels](hidden)
        (task,) = task_labels.unique().tolist()
        return self.heads[task](hidden)


class ScaledHeads(MultiHeadNet):
    """Several heads above a parameter that belongs to no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(5))

    def forward(self, x: Tensor, task_labels: Tensor | int) -> Tensor:
        return super().forward(x * self.scale, task_labels)


class ScaledLinear(nn.Linear):
    """A subclass that computes something else."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * x.square().sum(-1, keepdim=True)


class Renamed(nn.Linear):
    """A subclass that computes the same."""


class LastState(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.recurrent, self.head = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.recurrent(x)[0][:, -1])


class InPlace(nn.Module):
    """Changes its input and layers' outputs in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(5, 4), nn.Linear(4, 4, bias=False), nn.Linear(4, 3)
        self.scale = nn.Parameter(torch.randn(3))

    def forward(self, x: Tensor) -> Tensor:
        hidden = relu(self.first(x.mul_(2)), inplace=True)
        return self.third(self.second(hidden).add_(hidden)).mul_(self.scale)


class Added(nn.Module):
    """Adds parameters of every shape to the samples, whole and in part."""

    def __init__(self) -> None:
        super().__init__()
        shapes = (1, 4, 3), (4, 3), (3,), (), (1, 1, 3), (4, 1)
        self.added = nn.ParameterList(nn.Parameter(torch.randn(shape)) for shape in shapes)
        self.longer, self.last = nn.Parameter(torch.randn(6, 3)), nn.Parameter(torch.randn(1, 6, 3))
        self.token = nn.Parameter(torch.randn(1, 1, 3))
        self.head = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        for parameter in self.added:
            x = torch.tanh(x + parameter)
        x = torch.tanh(self.longer[:4].unsqueeze(-3) - x)
        x = torch.tanh(x.transpose(0, 1) - self.last[:, -4:].transpose(0, 1)).transpose(0, 1)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1)
        return self.head(torch.tanh(x @ x.mT) @ x).mean(1)


class Multiplied(nn.Module):
    """Multiplies samples, or their places, with parameters that belong to no layer; counts the first place only."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.bias = nn.Parameter(torch.randn(5, 3)), nn.Parameter(torch.randn(5))
        self.right, self.scalar = nn.Parameter(torch.randn(5, 4)), nn.Parameter(torch.randn(1))
        self.flat, self.flat_bias = nn.Parameter(torch.randn(4, 4)), nn.Parameter(torch.randn(4))
        self.last = nn.Parameter(torch.randn(3, 4))

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(linear(x, self.first, self.bias))
        hidden = torch.tanh(hidden.transpose(0, 1).flatten(0, 1) @ self.right)  # places are slow
        hidden = hidden.unflatten(0, (x.shape[1], len(x))).transpose(0, 1)
        hidden = torch.tanh(linear(hidden.flatten(0, 1), self.flat, self.flat_bias)).unflatten(0, x.shape[:2])  # fast
        return torch.tanh(torch.addmm(self.scalar, hidden[:, 0], self.last.T))


class Positions(nn.Module):
    """Adds embeddings of positions to those of tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.first = nn.Embedding(5, 4), nn.Embedding(6, 4)
        self.second, self.third = nn.Embedding(6, 4, padding_idx=1), nn.Embedding(6, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        position = torch.arange(x.shape[1], device=x.device)
        hidden = torch.tanh(self.tokens(x) + self.first(position))
        hidden = torch.tanh(self.second(position.unsqueeze(0) // 2) - hidden)
        hidden = torch.tanh(hidden + self.third(position)[None])
        return self.head(hidden * hidden.roll(1, 1)).mean(1)


class Held(nn.Module):
    """Holds a parameter in a list too, and takes it from there."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.shift, self.head = nn.Parameter(torch.randn(5)), nn.Parameter(torch.randn(5)), nn.Linear(5, 3)
        self.held = [self.scale]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(x * self.held[0]) * self.shift)


class Gain(nn.Module):
    """Parameters without dimensions, which are added to each other and not to samples."""

    def __init__(self) -> None:
        super().__init__()
        self.gain, self.more = nn.Parameter(torch.randn(())), nn.Parameter(torch.randn(()))
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x) * (1 + self.gain - self.more)


class Ragged(nn.Module):
    """Takes the tokens that are not 0 together, whichever samples they are of."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.inner, self.head = nn.Embedding(5, 4), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        kept = x > 0
        hidden = torch.zeros(*x.shape, 4, dtype=self.head.weight.dtype, device=x.device)
        hidden[kept] = torch.tanh(self.inner(torch.tanh(self.tokens(x[kept]))))
        return self.head(hidden.sum(1))


class CrossAttention(nn.Module):
    """Samples attend to other numbers of their own, of the same size and of others."""

    def __init__(self) -> None:
        super().__init__()
        self.same = nn.MultiheadAttention(4, 2, batch_first=True)
        self.other = nn.MultiheadAttention(4, 2, kdim=3, vdim=2, add_bias_kv=True)
        self.key, self.value, self.head = nn.Linear(4, 3), nn.Linear(4, 2), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        memory = torch.tanh(x.cumsum(1))
        hidden = self.same(x, memory, memory, need_weights=False)[0].transpose(0, 1)
        memory = memory.transpose(0, 1)
        return self.head(self.other(hidden, self.key(memory), self.value(memory))[0][0])


class AddedTwice(nn.Module):
    """One parameter in two places; another one that is looked up by the samples; and one as part of a slice."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.looked_up = nn.Parameter(torch.randn(4, 3)), nn.Parameter(torch.randn(5, 3))
        self.scaled, self.placed = nn.Parameter(torch.randn(3)), nn.Parameter(torch.randn(3))
        self.head = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(x + self.twice + self.looked_up[(10 * x[..., 0].detach()).long() % 5])
        x = torch.add(torch.tanh(x - self.twice), self.scaled, alpha=2)
        x[:, 1:].add_(self.placed)
        return self.head(torch.tanh(x)).mean(1)


class Spectral(nn.Module):
    """Real parameters that are multiplied with complex numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(4, 5)), nn.Parameter(torch.randn(5))
        self.filter, self.head = nn.Parameter(torch.randn(5, 5)), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.fft.fft(x)
        x = x @ self.weight.to(x.dtype) + self.bias
        return self.head(nn.functional.linear(x, self.filter.to(x.dtype), self.bias.to(x.dtype)).abs())


def images(classes: int, channels: int = 3, size: int = 8, samples: int = 7) -> Batches:
    x, y = torch.randn(samples, channels, size, size, dtype=torch.float64), torch.randint(classes, (samples,))
    return list(zip(x.split(4), y.split(4), strict=True))


def vectors(classes: int, *shape: int, samples: int = 7) -> Batches:
    x, y = torch.randn(samples, *shape, dtype=torch.float64), torch.randint(classes, (samples,))
    return list(zip(x.split(4), y.split(4), strict=True))


def tokens(classes: int, length: int, samples: int = 7, vocabulary: int = 5) -> Batches:
    x, y = torch.randint(vocabulary, (samples, length)), torch.randint(classes, (samples,))
    return list(zip(x.split(4), y.split(4), strict=True))


def sentences(*lengths: list[int]) -> Batches:
    """Tokens from 1, so many in each sample of a batch, and 0 after them."""
    x = [torch.randint(1, 5, (len(of_batch), 6)) for of_batch in lengths]
    x = [t * (torch.arange(6) < torch.tensor(n).unsqueeze(1)) for t, n in zip(x, lengths, strict=True)]
    return [(t, torch.randint(3, (len(t),))) for t in x]


def tasks() -> Batches:
    x, task = torch.randn(9, 5, dtype=torch.float64), torch.tensor([2, 0, 1, 0, 2, 2, 0, 1, 1])
    y = torch.tensor([3, 1, 0, 0, 2, 1, 1, 2, 2])
    return list(zip(x.split(5), y.split(5), task.split(5), strict=True))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(inplace=True), Renamed(8, 5), nn.Tanh(), nn.Linear(5, 3, bias=False))


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 6, (3, 2), dilation=(2, 1), padding=(2, 1), groups=2, padding_mode="circular"),
        nn.BatchNorm2d(6, eps=0.1),
        nn.Tanh(),
        nn.Conv2d(6, 6, 3, groups=6, padding="same", padding_mode="reflect"),
        nn.GroupNorm(3, 6, eps=0.1),
        nn.Conv2d(6, 5, (2, 3), stride=(3, 2), dilation=(1, 2), padding=(2, 3), bias=False),
        nn.ELU(),
        nn.MaxPool2d(2),
        nn.Conv2d(5, 8, 1, stride=2),
        nn.Flatten(),
        nn.LazyLinear(3),
    )


def cnn_1d() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(3, 4, 4, stride=3, padding=2, padding_mode="replicate"),
        nn.BatchNorm1d(4),
        nn.ReLU(),
        nn.Conv1d(4, 6, 2, dilation=2, groups=2, padding="same"),
        nn.Tanh(),
        nn.Flatten(),
        nn.LazyLinear(4),
        nn.BatchNorm1d(4),
        nn.LayerNorm(4),
        nn.Linear(4, 3),
    )


def frozen() -> nn.Module:
    model = mlp()
    model[0].weight.requires_grad_(False)
    model[2].requires_grad_(False)
    return model


def sequences() -> nn.Module:
    return nn.Sequential(
        nn.Linear(3, 4),
        nn.LayerNorm([5, 4], eps=0.1),
        nn.Tanh(),
        nn.Linear(4, 4),
        nn.LayerNorm(4),
        MeanOver((1, 2)),
        nn.Linear(4, 3),
    )


def embedding() -> nn.Module:
    return nn.Sequential(nn.Embedding(5, 4, padding_idx=2), nn.Tanh(), nn.Flatten(), nn.Linear(12, 3))


def sparse_embedding() -> nn.Module:
    """A layer of layers, whose weight's gradient autograd would give as a sparse tensor."""
    tokens = nn.Sequential(nn.Embedding(5, 4, sparse=True), nn.Tanh())
    return nn.Sequential(tokens, nn.Flatten(), nn.Linear(12, 3))


def encoder(*, batch_first: bool = True) -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.1, batch_first=batch_first, norm_first=not batch_first)
    return nn.Sequential(
        nn.Linear(3, 8), nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), MeanOver(1), nn.Linear(8, 3)
    )


def encoder_of_positions() -> nn.Module:
    class Swapped(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.transpose(0, 1)

    swapped = nn.TransformerEncoderLayer(8, 2, 12)
    return nn.Sequential(nn.Linear(3, 8), Swapped(), swapped, Swapped(), MeanOver(1), nn.Linear(8, 3))


def vision_transformer() -> nn.Module:
    model = torchvision.models.VisionTransformer(8, 4, 1, 2, 8, 12, num_classes=3)
    nn.init.normal_(model.heads.head.weight)  # torchvision's zeros hide everything below
    return model


def resnet() -> nn.Module:
    model = torchvision.models.resnet18(num_classes=3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return model


def hooked() -> nn.Module:
    model = mlp()
    model[0].register_forward_hook(lambda module, args, output: output * 2)
    return model


def normed() -> nn.Module:
    return nn.Sequential(weight_norm(nn.Linear(6, 5)), nn.Tanh(), ScaledLinear(5, 3))


def mixed_layers() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(1, 2, 2), nn.Tanh(), nn.InstanceNorm3d(2, affine=True), nn.Flatten(), nn.PReLU(), nn.LazyLinear(3)
    )


Entry = tuple[Callable[[], nn.Module], Callable[[], Batches]]

CLOSED: dict[str, Entry] = {
    "MLP": (mlp, partial(vectors, 3, 6)),
    "CNN": (cnn, partial(images, 3, size=16)),
    "CNN of one dimension": (cnn_1d, partial(vectors, 3, 3, 9)),
    "frozen parameters": (frozen, partial(vectors, 3, 6)),
    "Linear on sequences": (sequences, partial(vectors, 3, 2, 5, 3)),
    "Embedding": (embedding, partial(tokens, 3, 3)),
    "sparse Embedding": (sparse_embedding, partial(tokens, 3, 3)),
    "Embedding of single tokens": (
        lambda: nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 3)),
        lambda: [(torch.arange(4), torch.arange(4) % 3)],
    ),
    "ResNet-18": (resnet, partial(images, 3, size=32, samples=5)),
    "several heads": (MultiHeadNet, tasks),
    "vision transformer": (vision_transformer, partial(images, 3)),
    "TransformerEncoder": (encoder, partial(vectors, 3, 4, 3)),
    "TransformerEncoder on positions": (encoder_of_positions, partial(vectors, 3, 3, 3)),
    "added": (Added, partial(vectors, 3, 4, 3)),
    "multiplied": (Multiplied, partial(vectors, 3, 4, 3)),
    "multiplied, three places": (Multiplied, partial(vectors, 3, 3, 3)),
    "positions": (Positions, partial(tokens, 3, 4)),
    "two positions": (Positions, partial(tokens, 3, 2)),
    "positions first": (PositionsFirst, partial(vectors, 3, 4, 3)),
    "two positions first": (PositionsFirst, lambda: [(torch.randn(2, 2, 3).double(), torch.tensor([0, 2]))]),
    "windows": (Windows, partial(vectors, 3, 4, 3)),
    "detached twin": (DetachedTwin, partial(vectors, 4, 4)),
    "forward hook": (hooked, partial(vectors, 3, 6)),
}
"""Models whose parameters all have closed forms."""

OTHERS: dict[str, Entry] = {
    "cross-attention": (CrossAttention, partial(vectors, 3, 4, 4)),
    "held elsewhere": (Held, partial(vectors, 3, 5)),
    "sum of scalars": (Gain, partial(vectors, 3, 5)),
    "samples of unequal lengths": (Ragged, partial(sentences, [2, 4, 3])),
    "samples of unequal lengths, from the fourth": (Ragged, partial(sentences, [3, 3, 3, 2, 4])),
    "samples of unequal lengths, in the second batch": (Ragged, partial(sentences, [3, 3, 3], [2, 4])),
    "samples of one token, and of two and none": (Ragged, partial(sentences, [1, 1, 1], [2, 0])),
    "spectral": (Spectral, partial(vectors, 3, 4)),
    "added twice": (AddedTwice, partial(vectors, 3, 4, 3)),
    "tied autoencoder": (TiedAutoencoder, partial(vectors, 3, 6)),
    "weight shared by two layers": (SharedWeight, partial(tokens, 5, 3)),
    "layer called twice": (CalledTwice, partial(vectors, 3, 5)),
    "layer of two names": (repeated, partial(vectors, 3, 6)),
    "weight norm and a subclass": (normed, partial(vectors, 3, 6)),
    "layers without closed form": (mixed_layers, partial(vectors, 3, 1, 4, 4, 4)),
    "changes in place": (InPlace, partial(vectors, 3, 5)),
    "several heads and more": (ScaledHeads, tasks),
    "recurrent": (LastState, partial(vectors, 3, 4, 3)),
}
"""Models with parameters that need the general method."""


def build(entry: Entry, seed: int = 0) -> tuple[nn.Module, Batches]:
    """A model in float64, with parameters away from their initial special values, and its data."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        make_model, make_batches = entry
        model, batches = make_model(), make_batches()
        if _is_lazy(model):
            model.eval()(batches[0][0].float())
        model.double().train()
        for parameter in model.parameters():
            if parameter.dim() == 1:
                nn.init.normal_(parameter, mean=0.5, std=0.3)
        return model, batches


def _is_lazy(model: nn.Module) -> bool:
    return any(isinstance(parameter, nn.parameter.UninitializedParameter) for parameter in model.parameters())


def cast(batches: Batches, dtype: torch.dtype) -> Batches:
    return [tuple(t.to(dtype) if t.is_floating_point() else t for t in batch) for batch in batches]
