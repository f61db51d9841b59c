"""DM, DC and DSA against slow transcriptions of their algorithms, and the promises of tasks and generators."""

import dataclasses

import pytest
import slow
import torch
from made import global_seed, nothing_drawn

import ddlib.base_methods
from ddlib.augmentation import DSA_STRATEGY, OPERATIONS, DSAParams, apply_dsa, sample_dsa
from ddlib.base_methods import BASE_METHODS, Matching, Task
from ddlib.networks import build_network
from ddlib.rng import generator
from ddlib.synthetic import labels_of

STEP = 0.5  # on the images, between two updates


def make_task(dataset, ipc=2, seed=3, **settings):
    defaults = {"width": 4, "batch_real": 5, "outer_loops": 3, "inner_loops": 2, "lr_net": 0.2}
    return Task(dataset, labels_of(dataset.num_classes, ipc), Matching(**(defaults | settings)), seed)


def start_of(task, seed=0):
    real = task.dataset.train.images
    return torch.randn((len(task.labels), *real.shape[1:]), generator=torch.Generator().manual_seed(seed)).to(real)


def descend(updates, task, iteration, start=None, step=STEP):
    """Losses and gradients of all updates of an iteration, with a plain step on the images after each."""
    images = (start_of(task) if start is None else start.clone()).requires_grad_()
    losses, gradients = [], []
    for loss in updates(images, task, iteration):
        (gradient,) = torch.autograd.grad(loss, images)
        losses.append(loss.item())
        gradients.append(gradient)
        with torch.no_grad():
            images -= step * gradient / gradient.norm()
    return torch.tensor(losses), torch.stack(gradients)


def relative(a, b):
    return float((a - b).norm() / b.norm())


# Plain versions: one class, one image, one output unit at a time


def plain_network(task, iteration):
    data = task.dataset
    draw = generator(task.seed, "network", iteration)
    sizes = (data.channels, data.num_classes, data.image_size)
    return build_network(task.matching.network, *sizes, width=task.matching.width, generator=draw).double()


def plain_real(task, label, iteration, update):
    train, draw = task.dataset.train, generator(task.seed, "real batches", iteration, update, label)
    members = [i for i, of_image in enumerate(train.labels.tolist()) if of_image == label]
    chosen = torch.randperm(len(members), generator=draw).tolist()[: task.matching.batch_real]
    return [train.images[members[i]] for i in chosen]


def plain_params(task, label, iteration, update, strategy):
    return sample_dsa((1, 1, 8, 8), generator(task.seed, "augmentation", iteration, update, label), strategy)


def plain_synthetic(images, task, label):
    return [image for image, of_image in zip(images, task.labels.tolist(), strict=True) if of_image == label]


def plain_dm(images, task, iteration):
    network, syn, real = plain_network(task, iteration), [], []  # features with their label
    for label in range(task.dataset.num_classes):
        params = plain_params(task, label, iteration, 0, DSA_STRATEGY)
        parts = plain_synthetic(images, task, label), plain_real(task, label, iteration, 0)
        for found, part in zip((syn, real), parts, strict=True):
            found += [(network.features(apply_dsa(image[None], params))[0], label) for image in part]
    (syn, syn_labels), (real, real_labels) = (zip(*found, strict=True) for found in (syn, real))
    real = [feature.detach() for feature in real]
    yield slow.distribution_matching(syn, syn_labels, real, real_labels, task.dataset.num_classes)


def plain_cross_entropy(network, images, labels):
    return slow.clom(slow.log_probabilities([network(image[None])[0] for image in images]), labels)


def plain_training(network, images, task, iteration, update, strategy):
    """Epochs of plain SGD, the whole set in one batch; each image augmented by parameters of its own."""
    draw = generator(task.seed, "network training", iteration, update)
    for _ in range(task.matching.inner_loops):
        order = torch.randperm(len(images), generator=draw).tolist()
        params = sample_dsa(images.shape, draw, strategy, siamese=False)
        own = [DSAParams(params.operation, params.uniform[:, i : i + 1]) for i in range(len(order))]
        batch = [apply_dsa(images[i][None].detach(), one)[0] for i, one in zip(order, own, strict=False)]
        loss = plain_cross_entropy(network, batch, task.labels[order].tolist())
        parameters = list(network.parameters())
        still = [torch.zeros_like(parameter) for parameter in parameters]
        slow.sgd_step(parameters, torch.autograd.grad(loss, parameters), still, task.matching.lr_net)


def plain_gradient_matching(strategy):
    def updates(images, task, iteration):
        network = plain_network(task, iteration)
        for update in range(task.matching.outer_loops):
            loss = 0
            for label in range(task.dataset.num_classes):
                params, parts = plain_params(task, label, iteration, update, strategy), []
                for part in (plain_synthetic(images, task, label), plain_real(task, label, iteration, update)):
                    augmented = [apply_dsa(image[None], params)[0] for image in part]
                    entropy = plain_cross_entropy(network, augmented, [label] * len(part))
                    parts.append(torch.autograd.grad(entropy, list(network.parameters()), create_graph=True))
                loss = loss + slow.gradient_matching(parts[0], [gradient.detach() for gradient in parts[1]])
            yield loss
            if update < task.matching.outer_loops - 1:
                plain_training(network, images, task, iteration, update + 1, strategy)

    return updates


PLAIN = {"dm": plain_dm, "dc": plain_gradient_matching("none"), "dsa": plain_gradient_matching(DSA_STRATEGY)}


@pytest.fixture
def double(tiny, monkeypatch):
    """The data set and all networks in float64: in float32, rounding adds up over the updates to 1e-4."""
    monkeypatch.setattr(ddlib.base_methods, "build_network", lambda *a, **k: build_network(*a, **k).double())
    data = dataclasses.replace(tiny)
    train = dataclasses.replace(tiny.train, images=tiny.train.images.double())
    object.__setattr__(data, "train", train)  # a data set refuses float64
    return data


@pytest.mark.parametrize("method", PLAIN)
@pytest.mark.parametrize("iteration", [0, 1, 2])
def test_against_plain_versions(double, method, iteration):
    task = make_task(double)
    losses, gradients = descend(BASE_METHODS[method].updates, task, iteration)
    plain_losses, plain_gradients = descend(PLAIN[method], task, iteration)
    assert len(losses) == len(plain_losses) == (1 if method == "dm" else 3)
    for update in range(len(losses)):
        assert relative(losses[update], plain_losses[update]) < 1e-6
        assert relative(gradients[update], plain_gradients[update]) < 1e-6


@pytest.mark.parametrize("method", ["dc", "dsa"])
@pytest.mark.parametrize("changed", [{"inner_loops": 1}, {"lr_net": 0.1}, {"seed": 4}])
def test_the_comparison_would_see_another_training(tiny, method, changed):
    """Steps of length 0 leave the images alone: what differs afterwards is the network."""
    losses, _ = descend(BASE_METHODS[method].updates, make_task(tiny), 0, step=0)
    other, _ = descend(BASE_METHODS[method].updates, make_task(tiny, **changed), 0, step=0)
    assert relative(losses[1:], other[1:]) > 1e-3
    assert changed.keys() == {"seed"} or losses[0] == other[0]


def test_one_number_by_hand(tiny):
    """An identity as network: DM is the squared distance of mean pixels, 64 pixels of (2 - 0.5) squared."""

    class Pixels(torch.nn.Module):
        def features(self, images):
            return images.flatten(1)

    data = dataclasses.replace(tiny, train=dataclasses.replace(tiny.train, images=torch.full((36, 1, 8, 8), 2.0)))
    task = make_task(data, ipc=1)
    object.__setattr__(task, "fresh_network", lambda iteration: Pixels())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ddlib.base_methods.DSA_STRATEGY", "none")
        (loss,) = BASE_METHODS["dm"].updates(torch.full((3, 1, 8, 8), 0.5), task, 0)
    assert loss.item() == 3 * 64 * 1.5**2


# The Siamese property


def watch_augmentation(monkeypatch):
    seen = []

    def spy(images, params):
        seen.append((images, params))
        return apply_dsa(images, params)

    monkeypatch.setattr(ddlib.base_methods, "apply_dsa", spy)
    return seen


@pytest.mark.parametrize("method", ["dm", "dsa"])
def test_real_and_synthetic_images_share_operation_and_parameters(tiny, monkeypatch, method):
    task, seen = make_task(tiny), watch_augmentation(monkeypatch)
    for iteration in range(20):
        descend(BASE_METHODS[method].updates, task, iteration)
    assert len(seen) == 20 * (1 if method == "dm" else 3) * 3 * 2
    for (syn, params), (real, of_real) in zip(seen[::2], seen[1::2], strict=True):
        assert (len(syn), len(real)) == (2, 5)
        assert params is of_real
        assert params.uniform.shape == (3, 1)  # one draw for all images of both
    draws = [params for _, params in seen[::2]]
    assert {params.operation for params in draws} == set(OPERATIONS)
    assert len({tuple(params.uniform.flatten().tolist()) for params in draws}) == len(draws)


def test_dc_does_not_augment(tiny, monkeypatch):
    seen = watch_augmentation(monkeypatch)
    descend(BASE_METHODS["dc"].updates, make_task(tiny), 0)
    assert {params.operation for _, params in seen} == {"none"}


def test_pairs_carry_the_labels_of_their_class(tiny):
    task = make_task(tiny)
    for label, (syn, syn_labels, real, real_labels) in enumerate(task.pairs(start_of(task), 0, 0, "none")):
        assert torch.equal(syn, start_of(task)[2 * label : 2 * label + 2])
        assert syn_labels.tolist() == [label] * 2
        assert real_labels.tolist() == [label] * 5
        assert torch.equal(real, task.real_batch(label, 0, 0))


# Real batches and networks


def rows(images):
    return {tuple(image.flatten().tolist()) for image in images}


@pytest.mark.parametrize("label", range(3))
def test_real_batches_are_drawn_without_replacement_within_a_class(tiny, label):
    members = rows(tiny.train.images[tiny.train.labels == label])
    drawn = [rows(make_task(tiny, batch_real=8).real_batch(label, iteration, 0)) for iteration in range(8)]
    assert all(len(batch) == 8 and batch < members for batch in drawn)
    assert set().union(*drawn) == members


@pytest.mark.parametrize("batch_real", [12, 100])
def test_a_smaller_class_comes_whole(tiny, batch_real):
    batch = make_task(tiny, batch_real=batch_real).real_batch(1, 0, 0)
    assert len(batch) == 12
    assert rows(batch) == rows(tiny.train.images[tiny.train.labels == 1])


def test_a_real_batch_depends_on_seed_iteration_and_update_alone(tiny):
    task = make_task(tiny)
    same = make_task(tiny, ipc=4, width=8, lr_net=1.0, outer_loops=9)
    assert torch.equal(task.real_batch(0, 5, 2), same.real_batch(0, 5, 2))
    others = [make_task(tiny, seed=4).real_batch(0, 5, 2), task.real_batch(0, 6, 2), task.real_batch(0, 5, 1)]
    for other in others:
        assert rows(other) != rows(task.real_batch(0, 5, 2))


def test_each_iteration_has_another_network(tiny):
    task = make_task(tiny)
    weights = [task.fresh_network(iteration).classifier.weight for iteration in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[0], make_task(tiny, seed=4).fresh_network(0).classifier.weight)


# Generators


@pytest.mark.parametrize("method", ["dc", "dsa"])
def test_the_network_trains_on_the_images_as_the_caller_left_them(tiny, monkeypatch, method):
    task, seen = make_task(tiny), []
    monkeypatch.setattr(
        ddlib.base_methods, "train_network", lambda network, images, labels, **_: seen.append((images.clone(), labels))
    )
    images, left = start_of(task).requires_grad_(), []
    for update, _ in enumerate(BASE_METHODS[method].updates(images, task, 0)):
        with torch.no_grad():
            images += update + 1
        left.append(images.detach().clone())
    assert len(seen) == 2  # not before the first update, not after the last
    for (found, labels), expected in zip(seen, left, strict=False):
        assert torch.equal(found, expected)
        assert not found.requires_grad
        assert torch.equal(labels, task.labels)


@pytest.mark.parametrize("method", PLAIN)
def test_the_loss_is_that_of_the_images_as_they_are_now(tiny, method):
    """Changed after the last yield of iteration 0, they enter iteration 1; and the start decides nothing else."""
    task, updates = make_task(tiny, outer_loops=1), BASE_METHODS[method].updates
    images = start_of(task)
    (before,) = updates(images, task, 1)
    images.copy_(start_of(task, seed=1))
    (after,) = updates(images, task, 1)
    (again,) = updates(start_of(task, seed=1), task, 1)
    assert before != after
    assert after == again


@pytest.mark.parametrize("method", PLAIN)
def test_an_iteration_needs_none_before_it(tiny, method):
    task, updates = make_task(tiny), BASE_METHODS[method].updates
    for iteration in range(3):
        later = descend(updates, task, iteration)
    alone = descend(updates, make_task(tiny), 2)
    assert all(torch.equal(a, b) for a, b in zip(later, alone, strict=True))


@pytest.mark.parametrize("method", PLAIN)
def test_no_hidden_randomness(tiny, method):
    task = make_task(tiny)
    with nothing_drawn():
        first = descend(BASE_METHODS[method].updates, task, 0)
    with global_seed(99):
        second = descend(BASE_METHODS[method].updates, task, 0)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_without_base_method_there_is_one_update_without_loss(tiny):
    task = make_task(tiny)
    assert list(BASE_METHODS["none"].updates(start_of(task), task, 0)) == [None]


# Settings of the authors


@pytest.mark.parametrize("method", ["dc", "dsa"])
@pytest.mark.parametrize(
    ("ipc", "loops"),
    [
        *[(1, (1, 1)), (10, (10, 50)), (20, (20, 25)), (30, (30, 20)), (40, (40, 15)), (50, (50, 10))],  # the table
        *[(2, (2, 50)), (5, (5, 50)), (25, (25, 20)), (100, (100, 5)), (1000, (1000, 1))],  # 500 / ipc, from 1 to 50
    ],
)
def test_loops_of_gradient_matching(method, ipc, loops):
    found = Matching(method).for_ipc(ipc)
    assert (found.outer_loops, found.inner_loops) == loops


@pytest.mark.parametrize(
    ("method", "lr_img", "start"),
    [("dm", 1.0, "real"), ("dc", 0.1, "noise"), ("dsa", 0.1, "real"), ("none", 0.1, "real")],
)
def test_step_and_start_of_the_authors(method, lr_img, start):
    row = BASE_METHODS[method]
    assert (row.lr_img, row.start) == (lr_img, start)
    for ipc in (1, 10) if method in ("dm", "none") else (1,):
        found = Matching(method).for_ipc(ipc)
        assert (found.outer_loops, found.inner_loops) == (1, 1)


@pytest.mark.parametrize("method", BASE_METHODS)
def test_given_loops_stay_as_they_are(method):
    given = Matching(method, outer_loops=7, inner_loops=3, width=8)
    assert given.for_ipc(10) == given
    assert Matching(method, inner_loops=3).for_ipc(10).inner_loops == 3
