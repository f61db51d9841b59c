"""Selections of real images: against slow plain versions, and against examples done by hand."""

import math

import pytest
import torch
from conftest import separable_dataset
from made import global_seed, nothing_drawn

from ddlib.data.dataset import Dataset, ImageFormat, Split
from ddlib.selection import SELECTIONS, full_data, random_real, select_real, starting_images


def dataset_of(labels, name="by hand"):
    """Images that show nothing but their own number."""
    labels = torch.tensor(labels)
    images = torch.arange(float(len(labels))).view(-1, 1, 1, 1).expand(-1, 1, 8, 8).contiguous()
    names = tuple("abcdef"[: int(labels.max()) + 1])
    split = Split(images, labels)
    return Dataset(name, split, split, names, ImageFormat(1, images.shape[-1], (0.5,), (0.25,)))


def squared_distance(x, y):
    return sum((a - b) ** 2 for a, b in zip(x, y, strict=True))


def mean_of(rows):
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def plain_herding(features, ipc):
    """Each time the image that brings the mean of the chosen nearest to the mean of all."""
    chosen = []
    for _ in range(ipc):
        left = [i for i in range(len(features)) if i not in chosen]
        target = mean_of(features)
        chosen.append(min(left, key=lambda i: squared_distance(target, mean_of([features[j] for j in [*chosen, i]]))))
    return chosen


def plain_k_center(features, ipc):
    """The image nearest to the mean, then each time the one whose nearest chosen image is farthest."""
    chosen = [min(range(len(features)), key=lambda i: squared_distance(features[i], mean_of(features)))]
    while len(chosen) < ipc:
        left = [i for i in range(len(features)) if i not in chosen]
        chosen.append(max(left, key=lambda i: min(squared_distance(features[i], features[j]) for j in chosen)))
    return chosen


def plain_k_means(features, start):
    """Lloyd's algorithm from some images, until nothing moves; then for each centre the nearest image that is left."""
    ipc, centres = len(start), [features[i] for i in start]
    while True:
        clusters = [[] for _ in centres]
        for x in features:
            clusters[min(range(ipc), key=lambda k: squared_distance(x, centres[k]))].append(x)
        moved = [mean_of(of_centre) if of_centre else c for of_centre, c in zip(clusters, centres, strict=True)]
        if moved == centres:
            break
        centres = moved
    chosen = []
    for centre in centres:
        left = [i for i in range(len(features)) if i not in chosen]
        chosen.append(min(left, key=lambda i: squared_distance(features[i], centre)))
    return chosen


PLAIN = {"herding": plain_herding, "k_center": plain_k_center}
REAL = [method for method, row in SELECTIONS.items() if row.real]


@pytest.mark.parametrize("method", PLAIN)
@pytest.mark.parametrize("ipc", [1, 5, 12])
def test_against_plain_versions(tiny, method, ipc):
    features = torch.randn(36, 3, generator=torch.Generator().manual_seed(ipc), dtype=torch.float64)
    plain = []
    for label in range(3):
        members = (tiny.train.labels == label).nonzero().flatten()
        plain += members[PLAIN[method](features[members].tolist(), ipc)].tolist()
    assert SELECTIONS[method].choose(tiny, ipc, 0, features).tolist() == plain


BY_HAND = {
    # Mean 2. Nearest: 1. With 1, the mean of {1, 5} is 3 and that of {0, 1} is 1/2: 5. Then what is left.
    ("herding", (0.0, 1.0, 5.0)): [1, 2, 0],
    # Mean 2. Nearest: 1. Farthest from it: 5. Then what is left.
    ("k_center", (0.0, 1.0, 5.0)): [1, 2, 0],
    # Mean 5. Nearest: 4. Farthest from it: 12. Then 0 (4 from its nearest) before 2 (2) and 7 (3); then 7.
    ("k_center", (0.0, 2.0, 4.0, 7.0, 12.0)): [2, 4, 0, 3, 1],
    # Mean 5. First 4. {4, 7} has mean 11/2, {4, 2} 3. {4, 7, 2} has 13/3, with 0 it is 11/3, with 12 23/3. Then 12.
    ("herding", (0.0, 2.0, 4.0, 7.0, 12.0)): [2, 3, 1, 4, 0],
    # Images that look alike are chosen too, each once.
    ("k_center", (1.0, 1.0, 1.0)): [0, 1, 2],
    ("herding", (1.0, 1.0, 1.0)): [0, 1, 2],
}


@pytest.mark.parametrize(("method", "values"), BY_HAND)
def test_by_hand(method, values):
    """A second class stands between, with the same features the other way round."""
    n = len(values)
    dataset = dataset_of([0, 1] * n)
    features = torch.tensor([v for pair in zip(values, reversed(values), strict=True) for v in pair])[:, None]
    order = BY_HAND[method, values]
    second = order if len(set(values)) == 1 else [n - 1 - i for i in order]
    for ipc in range(1, n + 1):
        expected = [2 * i for i in order[:ipc]] + [2 * i + 1 for i in second[:ipc]]
        assert SELECTIONS[method].choose(dataset, ipc, 0, features).tolist() == expected


@pytest.mark.parametrize("ipc", [1, 2, 5, 12])
def test_k_means_against_a_plain_version(tiny, ipc):
    features = torch.randn(36, 3, generator=torch.Generator().manual_seed(ipc), dtype=torch.float64)
    plain, start = [], random_real(tiny, ipc, 0).view(3, ipc).tolist()
    for label in range(3):
        members = (tiny.train.labels == label).nonzero().flatten()
        places = [members.tolist().index(i) for i in start[label]]
        plain += members[plain_k_means(features[members].tolist(), places)].tolist()
    assert SELECTIONS["k_means"].choose(tiny, ipc, 0, features).tolist() == plain


def test_k_means_by_hand():
    """Clusters {0, 5, 6} and {20, 21}, wherever it starts: means 11/3 and 41/2, nearest 5 and, of two, 20."""
    dataset, features = dataset_of([0] * 5), torch.tensor([0.0, 5.0, 6.0, 20.0, 21.0])[:, None]
    assert sorted(SELECTIONS["k_means"].choose(dataset, 2, 0, features).tolist()) == [1, 3]
    assert SELECTIONS["k_means"].choose(dataset, 1, 0, features).tolist() == [2], "mean 52/5: 6"


def test_class_means_are_those_of_equal_parts_in_order(tiny):
    of_class = [tiny.train.images[tiny.train.labels == label] for label in range(3)]
    one = select_real(tiny, 1, "class_means")
    torch.testing.assert_close(one.images, torch.stack([images.mean(0) for images in of_class]))
    assert one.labels.tolist() == [0, 1, 2]
    three = select_real(tiny, 3, "class_means")
    expected = [sum(images[i : i + 4]) / 4 for images in of_class for i in (0, 4, 8)]
    torch.testing.assert_close(three.images, torch.stack(expected))
    assert torch.equal(select_real(tiny, 12, "class_means").images, torch.cat(of_class)), "parts of one image each"
    uneven = select_real(tiny, 5, "class_means").images[:5]
    torch.testing.assert_close(uneven[0], of_class[0][:3].mean(0))
    torch.testing.assert_close(uneven[4], of_class[0][10:].mean(0))


def test_the_rows_say_what_is_seeded_and_what_is_real(tiny):
    features = tiny.train.images.flatten(1)
    for method, row in SELECTIONS.items():
        first, second = (row.choose(tiny, 4, seed, features) for seed in (0, 1))
        assert torch.equal(first, second) == (not row.seeded), method
        assert (first.dtype == torch.int64) == row.real, method


@pytest.mark.parametrize("method", REAL)
@pytest.mark.parametrize("ipc", [1, 3, 12])
def test_different_images_of_the_right_class(tiny, method, ipc):
    chosen = SELECTIONS[method].choose(tiny, ipc, 7, tiny.train.images.flatten(1))
    assert chosen.dtype == torch.int64
    assert len(set(chosen.tolist())) == 3 * ipc
    assert torch.equal(tiny.train.labels[chosen], torch.arange(3).repeat_interleave(ipc))


# Random


def test_random_follows_the_seed_and_nothing_else(tiny):
    with global_seed(1):
        first = random_real(tiny, 4, 0)
    with global_seed(2), nothing_drawn():
        assert torch.equal(random_real(tiny, 4, 0, torch.randn(36, 2, generator=torch.Generator())), first)
    assert not torch.equal(random_real(tiny, 4, 1), first)


def test_random_begins_with_the_choice_for_a_smaller_ipc(tiny):
    few, many = random_real(tiny, 2, 0).view(3, 2), random_real(tiny, 6, 0).view(3, 6)
    assert torch.equal(many[:, :2], few)


def test_random_is_uniform_and_draws_each_class_anew():
    n = 600
    dataset = dataset_of([0] * 5 + [1] * 5)
    chosen = torch.stack([random_real(dataset, 2, seed) for seed in range(n)])
    counts = chosen.flatten().bincount(minlength=10)
    assert (counts - n * 2 / 5).abs().max() < 5 * math.sqrt(n * 0.4 * 0.6)
    alike = (chosen[:, 0] == chosen[:, 2] - 5).sum()
    assert abs(alike - n / 5) < 5 * math.sqrt(n * 0.2 * 0.8)


# Sets


@pytest.mark.parametrize("method", REAL)
def test_select_real_gives_the_chosen_images(tiny, method):
    features = torch.randn(36, 2, generator=torch.Generator().manual_seed(0))
    found = select_real(tiny, 3, method, seed=5, features=features)
    index = SELECTIONS[method].choose(tiny, 3, 5, features)
    assert torch.equal(found.images, tiny.train.images[index])
    assert torch.equal(found.labels, tiny.train.labels[index])
    assert found.format == tiny.format
    assert found.class_names == tiny.class_names
    by_provenance = {"dataset": "tiny", "dataset_hash": tiny.hash, "method": method, "ipc": 3, "seed": 5}
    assert found.provenance == by_provenance


@pytest.mark.parametrize("method", PLAIN)
def test_without_features_the_pixels_count(tiny, method):
    by_pixels = select_real(tiny, 3, method)
    assert torch.equal(by_pixels.images, select_real(tiny, 3, method, features=tiny.train.images.flatten(1)).images)
    other = torch.randn(36, 2, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(by_pixels.images, select_real(tiny, 3, method, features=other).images)


def test_features_of_a_ptm_may_judge(tiny, tiny_ptms):
    features = tiny_ptms[0].features_of(tiny.train.images)
    assert len(select_real(tiny, 2, "herding", features=features)) == 6


def test_a_selection_is_a_copy():
    dataset = separable_dataset()
    before = dataset.train.images.clone()
    select_real(dataset, 12).images.zero_()
    images, _ = starting_images(dataset, 12, "real", 0)
    images.zero_()
    assert torch.equal(dataset.train.images, before)


def test_full_data_is_all_of_the_train_split(tiny):
    found = full_data(tiny)
    assert torch.equal(found.images, tiny.train.images)
    assert torch.equal(found.labels, tiny.train.labels)
    assert found.provenance == {"dataset": "tiny", "dataset_hash": tiny.hash, "method": "full"}


# Starts


@pytest.mark.parametrize("seed", [0, 3])
def test_a_real_start_is_the_random_baseline(tiny, seed):
    images, labels = starting_images(tiny, 4, "real", seed)
    baseline = select_real(tiny, 4, "random", seed=seed)
    assert torch.equal(images, baseline.images)
    assert torch.equal(labels, baseline.labels)
    assert not torch.equal(images, starting_images(tiny, 4, "real", seed + 1)[0])


def test_a_start_from_noise_is_normal_and_follows_the_seed(tiny_rgb):
    images, labels = starting_images(tiny_rgb, 50, "noise", 0)
    assert images.shape == (150, 3, 16, 16)
    assert torch.equal(labels, torch.arange(3).repeat_interleave(50))
    assert abs(images.mean()) < 5 / math.sqrt(images.numel())
    assert abs(images.var() - 1) < 5 * math.sqrt(2 / images.numel())
    assert torch.equal(images, starting_images(tiny_rgb, 50, "noise", 0)[0])
    assert not torch.equal(images, starting_images(tiny_rgb, 50, "noise", 1)[0])


def test_the_device_is_that_of_the_data_and_changes_no_choice(tiny, gpu):
    there = tiny.to("cuda")
    features = tiny.train.images.flatten(1).double()
    for row in SELECTIONS.values():
        there_chosen = row.choose(there, 4, 0, features.to("cuda"))
        assert torch.equal(there_chosen.cpu(), row.choose(tiny, 4, 0, features))
    for start in ("real", "noise"):
        images, labels = starting_images(there, 4, start, 0)
        assert labels.is_cuda
        assert torch.equal(images.cpu(), starting_images(tiny, 4, start, 0)[0])


# Errors


@pytest.mark.parametrize("method", SELECTIONS)
@pytest.mark.parametrize("ipc", [0, -1, 3])
def test_more_images_than_the_smallest_class_has(method, ipc):
    dataset = dataset_of([0, 0, 0, 1, 1, 2, 2, 2])
    with pytest.raises(ValueError, match=rf"ipc must be from 1 to 2, .* of class 'b' of by hand; found {ipc}\."):
        select_real(dataset, ipc, method)


def test_a_start_needs_enough_images(tiny):
    with pytest.raises(ValueError, match="ipc must be from 1 to 12"):
        starting_images(tiny, 13, "real", 0)
    assert len(starting_images(tiny, 13, "noise", 0)[0]) == 39  # noise is always enough


def test_unknown_names_list_the_known_ones(tiny):
    with pytest.raises(ValueError, match="unknown selection 'forgetting'; known: random, herding, k_center"):
        select_real(tiny, 1, "forgetting")
    with pytest.raises(ValueError, match="unknown start 'mean'; known: real, noise"):
        starting_images(tiny, 1, "mean", 0)
