import shutil

import numpy as np
import pytest
import torch

from avsi.data import DATASETS, DataError, ImageSet, available, load, published_counts, store
from avsi.scenarios import (
    Source,
    build,
    cifar_transfer,
    five_vision,
    mnist_background,
    on_backgrounds,
    sequence,
    split_digits,
)
from avsi.scenarios.backgrounds import upright

PRESENT = ("mnist", "notmnist", "fashion_mnist", "cifar10")


def small(name, images, labels=None):
    """A data set of real digits in another shape, both splits the same."""
    labels = load("digits", "test").labels[: len(images)] if labels is None else labels
    return Source(*(ImageSet(name, split, images, labels, {"source": name}) for split in ("train", "test")))


@pytest.fixture(scope="module")
def digits():
    return load("digits", "test").images[:100]


def inputs(experience):
    return torch.stack([experience.dataset[i][0] for i in range(len(experience.dataset))])


# A sequence of data sets


def test_sequence_pads_and_repeats_against_numpy(digits):
    colour = torch.cat([digits, digits.mT, digits.flip(2)], 1).repeat_interleave(2, dim=3)  # (3, 8, 16)
    benchmark = build(sequence([small("grey", digits), small("colour", colour)], size=16))
    for experience, images in zip(benchmark.train_stream, (digits, colour), strict=True):
        expected = np.zeros((100, 3, 16, 16), dtype=np.float32)
        width = images.shape[3]
        left = (16 - width) // 2
        expected[:, :, 4:12, left : left + width] = images.numpy() / np.float32(255)
        assert np.array_equal(inputs(experience).numpy(), expected)
    assert [experience.task_label for experience in benchmark.test_stream] == [0, 1]
    assert benchmark.classes == {"grey": list(range(10)), "colour": list(range(10))}
    assert inputs(build(sequence([small("grey", digits), small("colour", colour)])).train_stream[0]).shape[1:] == (
        3,
        8,
        16,
    )


def test_sequence_normalises_each_data_set(digits):
    tasks = sequence([small("a", digits), small("b", digits // 2)], size=10, channels=3, normalise=True)
    for experience in build(tasks).train_stream:
        x = inputs(experience).double()
        assert torch.allclose(x.mean((0, 2, 3)), torch.zeros(3).double(), atol=1e-6)
        assert torch.allclose(x.var((0, 2, 3), correction=0), torch.ones(3).double(), atol=1e-5)
    tasks = sequence([small("a", digits)], normalise={"a": ([0.5], [0.25])})
    assert torch.allclose(inputs(build(tasks).train_stream[0]), (digits / 255 - 0.5) / 0.25)
    with pytest.raises(ValueError, match="channel 0 of c's training images has the same value everywhere"):
        sequence([small("c", torch.zeros_like(digits))], normalise=True)
    with pytest.raises(ValueError, match=r"normalise gives no mean and standard deviation for 'b', only \['a'\]"):
        sequence([small("b", digits)], normalise={"a": ([0.5], [0.25])})


def test_sequence_refuses_what_does_not_fit(digits):
    with pytest.raises(ValueError, match=r"a has images of the shape \(1, 8, 8\), which cannot become \(3, 7, 7\)"):
        sequence([small("a", digits)], size=7, channels=3)
    with pytest.raises(ValueError, match=r"\(3, 8, 8\), which cannot become \(1, 8, 8\)"):
        sequence([small("a", digits.expand(-1, 3, -1, -1))], channels=1)


def test_five_vision_needs_its_data_or_a_choice(tmp_path):
    with pytest.raises(DataError, match="the data set 'mnist' is not in"):
        five_vision(dataset_root=tmp_path, download=False)
    with pytest.raises(DataError, match="unknown data set 'minst'"):
        five_vision(datasets=("minst",), dataset_root=tmp_path)
    one = five_vision(datasets=("digits",), dataset_root=tmp_path, download=False)
    assert inputs(one.train_stream[0]).shape == (1442, 3, 32, 32)
    assert one.notes == ("partial: without mnist, notmnist, fashion_mnist, svhn, cifar10",)


def check_vision(benchmark, names, root):
    for split in ("train", "test"):
        for task, (name, experience) in enumerate(zip(names, getattr(benchmark, f"{split}_stream"), strict=True)):
            images = load(name, split, dataset_root=root)
            assert len(experience.dataset) == len(images)
            assert experience.task_labels == [task]
            assert experience.classes_in_this_experience == list(range(10))
            x, y, task_label = experience.dataset[77]
            pixels = images.images[77].numpy()
            pad = (32 - pixels.shape[1]) // 2
            expected = np.pad(pixels, ((0, 0), (pad, pad), (pad, pad))).repeat(3 // len(pixels), axis=0)
            assert np.array_equal(x.numpy(), expected / np.float32(255))
            assert (y, task_label) == (int(images.labels[77]), task)
    assert set(benchmark.classes) == set(names)


def test_five_vision_on_four_data_sets_is_called_partial(real_data):
    benchmark = five_vision(datasets=PRESENT, dataset_root=real_data)
    check_vision(benchmark, PRESENT, real_data)
    assert benchmark.notes == ("partial: without svhn",)
    held_out = sum(round(0.1 * count) for count in published_counts("mnist", "train"))
    valid = five_vision(datasets=PRESENT[:1], dataset_root=real_data, validation=0.1).valid_stream
    assert [len(experience.dataset) for experience in valid] == [held_out]
    reordered = five_vision(datasets=("cifar10", "mnist"), dataset_root=real_data)
    assert reordered.train_stream[0].dataset[0][0].equal(benchmark.train_stream[3].dataset[0][0])


def test_five_vision_normalised(real_data):
    benchmark = five_vision(datasets=PRESENT, dataset_root=real_data, normalise=True)
    for experience in benchmark.train_stream:
        data, rows = (
            experience.dataset,
            torch.randperm(len(experience.dataset), generator=torch.Generator().manual_seed(0)),
        )
        x = torch.stack([data[i][0] for i in rows[:1000].tolist()]).double()
        assert x.mean((0, 2, 3)).abs().max() < 0.05
        assert (x.std((0, 2, 3)) - 1).abs().max() < 0.05


def test_five_vision_takes_the_fifth_where_it_is(real_data, tmp_path):
    """SVHN's shape and classes, in pixels of CIFAR-10: what is not SVHN calls itself incomplete."""
    for name in PRESENT:
        (tmp_path / name).symlink_to(f"{real_data}/{name}")
    (tmp_path / "svhn").mkdir()
    for split in ("train", "test"):
        standin = load("cifar10", split, dataset_root=real_data)
        meta = {"name": "svhn", "split": split, "source": "a stand-in", "complete": "false", "note": ""}
        path = store.prepared_path(tmp_path, "svhn", split)
        store.write(path, tmp_path, standin.images[::20].clone(), standin.labels[::20].clone(), meta)
    benchmark = five_vision(dataset_root=tmp_path, download=False)
    names = ("mnist", "notmnist", "fashion_mnist", "svhn", "cifar10")
    check_vision(benchmark, names, tmp_path)
    assert benchmark.notes == ()
    (note,) = five_vision(datasets=names[::-1], dataset_root=tmp_path, download=False).notes
    assert note.startswith("the published sequence is mnist, notmnist")


# Transfer


def test_cifar_transfer(real_data):
    benchmark = cifar_transfer(dataset_root=real_data)
    assert [len(e.dataset) for e in benchmark.train_stream] == [40_000, 100]
    assert [len(e.dataset) for e in benchmark.test_stream] == [8_000, 2_000]
    assert [e.classes_in_this_experience for e in benchmark.train_stream] == [list(range(8)), [0, 1]]
    assert [e.task_label for e in benchmark.train_stream] == [0, 1]
    assert sum(benchmark.train_stream[1].dataset.targets) == 50
    assert benchmark.classes == {"cifar10": list(range(10))}
    cifar = load("cifar10", "train", dataset_root=real_data)
    eights = {tuple(x) for x in cifar.images[cifar.labels == 8].flatten(1)[:, :99].tolist()}
    x = (inputs(benchmark.train_stream[1]) * 255).round().int().flatten(1)[:, :99]
    assert [tuple(row) in eights for row in x.tolist()] == [y == 0 for y in benchmark.train_stream[1].dataset.targets]
    other = cifar_transfer(dataset_root=real_data, seed=1, images_per_class=20, validation=0.25)
    assert [len(e.dataset) for e in other.train_stream] == [30_000, 30]
    assert [len(e.dataset) for e in other.valid_stream] == [10_000, 10]


def test_backgrounds_written_out(digits):
    photos = torch.stack([digits[:50, 0].repeat(1, 2, 2) // k for k in (1, 2, 3)], dim=1)[:, :, :11, :12]
    front, back = small("front", digits), small("back", photos, torch.arange(50) % 10)
    made = on_backgrounds(front, back, seed=4)
    used = set()
    for n, image in enumerate(made.train.images[:, 0].tolist()):
        candidates = []
        for m in range(50):
            grey = [
                [(299 * r + 587 * g + 114 * b + 500) // 1000 for r, g, b in zip(*rows, strict=True)]
                for rows in zip(*photos[m].tolist(), strict=True)
            ]
            for top in range(4):
                for left in range(5):
                    patch = [row[left : left + 8] for row in grey[top : top + 8]]
                    candidates.append((patch, m, top, left))
        fits = [
            place
            for patch, *place in candidates
            if np.array_equal(np.maximum(patch, digits[n, 0].numpy()), np.array(image))
        ]
        assert fits, "every image is a digit on some patch"
        used.update(map(tuple, fits))
        if n == 9:
            break
    assert len({place[0] for place in used}) > 5
    assert torch.equal(made.train.labels, front.train.labels)
    assert not torch.equal(made.train.images, made.test.images), "each split has backgrounds of its own"
    assert torch.equal(on_backgrounds(front, back, seed=4).test.images, made.test.images)
    assert not torch.equal(on_backgrounds(front, back, seed=5).test.images, made.test.images)
    assert made.train.metadata["complete"] == "false"
    with pytest.raises(ValueError, match="backgrounds at least as large"):
        on_backgrounds(back, front)


def test_mnist_background_rebuilt(real_data):
    assert not available("mnist_background", dataset_root=real_data)
    benchmark = mnist_background(dataset_root=real_data, backgrounds="cifar10")
    assert benchmark.notes == ("rebuild: mnist on patches of cifar10, not the original files",)
    assert [len(e.dataset) for e in benchmark.train_stream] == [60_000, 100]
    assert [len(e.dataset) for e in benchmark.test_stream] == [10_000, 10_000]
    assert sorted(benchmark.train_stream[1].dataset.targets) == sorted(list(range(10)) * 10)
    assert benchmark.classes == {"mnist": list(range(10)), "cifar10": list(range(10))}
    assert len(benchmark.image_sets) == 4
    assert all(image_set.complete for image_set in benchmark.image_sets)
    for i in range(50):
        digit, with_background = (benchmark.test_stream[task].dataset[i] for task in (0, 1))
        assert digit[1] == with_background[1]
        assert (with_background[0] >= digit[0]).all()
        assert with_background[0].mean() > digit[0].mean() + 0.05
    again, other = (
        mnist_background(dataset_root=real_data, backgrounds="cifar10", seed=1),
        mnist_background(dataset_root=real_data, backgrounds="cifar10", background_seed=1),
    )
    assert again.test_stream[1].dataset[5][0].equal(benchmark.test_stream[1].dataset[5][0])
    assert not again.train_stream[1].dataset[0][0].equal(benchmark.train_stream[1].dataset[0][0])
    assert not other.test_stream[1].dataset[5][0].equal(benchmark.test_stream[1].dataset[5][0])
    with pytest.raises(DataError, match=r"'mnist_background' is not in .*nothing vouches for its files"):
        mnist_background(dataset_root=real_data, original=True)


@pytest.mark.parametrize("turned", [False, True])
def test_mnist_background_from_the_files_the_user_has(real_data, tmp_path, turned):
    """A few hundred lines in the format of the original files, which are ten thousands."""
    for name in ("mnist", "cifar10"):
        (tmp_path / name).symlink_to(f"{real_data}/{name}")
    given = tmp_path / "mnist_background" / "source"
    given.mkdir(parents=True)
    mnist = Source.load("mnist", real_data, False)
    some = [
        ImageSet("mnist", part.split, part.images[:600].clone(), part.labels[:600], part.metadata)
        for part in (mnist.train, mnist.test)
    ]
    made = on_backgrounds(Source(*some), Source.load("cifar10", real_data, False))
    for part in (made.train, made.test):
        images = part.images.mT if turned else part.images
        lines = np.concatenate([images.flatten(1).numpy() / 255, part.labels[:, None].numpy()], axis=1)
        np.savetxt(given / f"mnist_background_images_{part.split}.amat", lines, fmt="%.7g")
    benchmark = mnist_background(dataset_root=tmp_path, download=False)
    assert benchmark.notes == ()
    assert [len(e.dataset) for e in benchmark.train_stream] == [60_000, 100]
    assert [len(e.dataset) for e in benchmark.test_stream] == [10_000, 600]
    assert torch.equal((inputs(benchmark.test_stream[1]) * 255).round(), made.test.images.float())
    assert benchmark.classes == {"mnist": list(range(10)), "mnist_background": list(range(10))}
    assert load("mnist_background", "train", dataset_root=tmp_path).metadata["complete"] == "false"
    shutil.rmtree(given)  # prepared files are enough
    assert len(mnist_background(dataset_root=tmp_path, download=False).test_stream[1].dataset) == 600
    assert mnist_background(dataset_root=tmp_path, original=False).notes


def test_upright_turns_only_what_lies(digits):
    standing = small("standing", digits)
    assert upright(standing, standing) is standing
    lying = small("lying", digits.mT.contiguous())
    turned = upright(lying, standing)
    assert torch.equal(turned.train.images, digits)
    assert turned.made_from == (lying,)


def test_finished_results_still_hold():
    """Split digits' samples, labels and validation split, as they are in the published results."""
    benchmark = split_digits(validation=0.1, seed=3)
    sums = []
    for stream in (benchmark.train_stream, benchmark.valid_stream, benchmark.test_stream):
        x, y = (
            torch.cat(parts)
            for parts in zip(*((inputs(e), torch.tensor(e.dataset.targets)) for e in stream), strict=True)
        )
        order = torch.arange(1, len(y) + 1)
        pixels = (x * 255).round().long().flatten(1) @ torch.arange(1, 65)
        sums.append((len(y), int(pixels @ order), int(y @ order)))
    assert sums == [(1299, 135639013041, 425712), (143, 1636101863, 5126), (355, 10182020492, 31878)]


def test_data_sets_that_scenarios_use_are_known():
    assert set(PRESENT) | {"svhn", "mnist_background"} <= set(DATASETS)
    assert sum(published_counts("svhn", "train")) == 73_257


def test_names_of_data_sets_are_a_sequence():
    with pytest.raises(TypeError, match=r"datasets must be a sequence of names, got 'mnist'; write \['mnist'\]"):
        five_vision(datasets="mnist")
