"""What is timed. Sizes are those of the field: ConvNet-3 of width 128, 32x32 RGB, ten images per class of ten."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.data import TensorDataset

from benchmarks import plain
from benchmarks.measure import Against, Row
from ddlib.augmentation import DSA_STRATEGY
from ddlib.base_methods import BASE_METHODS, Matching, Task
from ddlib.combine import STRATEGIES, Step
from ddlib.compute import Compute
from ddlib.data.dataset import Dataset, ImageFormat, Split
from ddlib.distill import distill
from ddlib.evaluate import evaluate
from ddlib.guidance import Guidance
from ddlib.networks import NETWORKS, build_network
from ddlib.ptms.ptm import PTM
from ddlib.rng import generator
from ddlib.selection import select_real
from ddlib.synthetic import labels_of
from ddlib.training import train_network

RESULTS = Path(__file__).parent / "results"
CCLOM_BATCH = 8196  # real images in the CCLoM batch of the reference's commands


def stand_in(device: torch.device, num_classes: int = 10, size: int = 32, per_class: int = 1024) -> Dataset:
    """Random images of CIFAR's shape: time does not depend on what they show. A class is a colour, to be learned."""
    draw = generator(0, "stand-in")
    colour = torch.randn(num_classes, 3, 1, 1, generator=draw)

    def split(count: int) -> Split:
        labels = torch.arange(count * num_classes) % num_classes
        return Split(colour[labels] + torch.randn(len(labels), 3, size, size, generator=draw), labels)

    names = tuple(f"class {label}" for label in range(num_classes))
    data = Dataset("stand-in", split(per_class), split(26), names, ImageFormat(3, size, (0.5,) * 3, (0.25,) * 3))
    return data.to(device)


def random_ptms(data: Dataset, count: int, width: int = 128) -> list[PTM]:
    """PTMs as fast as trained ones."""
    sizes = (data.channels, data.num_classes, data.image_size)
    return [
        PTM(
            build_network("ConvNet-3", *sizes, width=width, generator=generator(0, "ptm", index), device=data.device),
            "ConvNet-3",
            data.name,
            data.class_names,
            data.format,
            hash=f"random-{index}",
            index=index,
        )
        for index in range(count)
    ]


def synthetic_images(data: Dataset, ipc: int = 10) -> tuple[torch.Tensor, torch.Tensor]:
    """Images that learn, and their labels."""
    labels = labels_of(data.num_classes, ipc).to(data.device)
    images = torch.randn((len(labels), *data.train.images.shape[1:]), generator=generator(0, "synthetic"))
    return images.to(data.device).requires_grad_(), labels


def base_step(method: str, task: Task, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss and gradient of the first update of an iteration, as ``ddlib.distill`` gets them."""
    loss = next(BASE_METHODS[method].updates(images, task, 0))
    return loss.detach(), torch.autograd.grad(loss, images)[0]


def guided(strategy: str, images: torch.Tensor, signals: list) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss and gradient of guidance, as ``ddlib.distill`` gets them."""
    said = STRATEGIES[strategy](images, signals, Step(0, 0))
    return said.loss, said.gradient


FLOAT32, COMPILED, BF16 = Compute(), Compute(compile="always"), Compute("bf16", "auto")
ROUNDED = 0.2  # of an update in bf16, which keeps three digits of every map: 0.08 to 0.11 were measured


def all_rows(device: torch.device) -> list[Row]:
    """The table, in the order in which it is printed."""
    data = stand_in(device)
    images, labels = synthetic_images(data)
    ptms = random_ptms(data, 10)
    on_cpu = device.type == "cpu"
    short, pool = (8, 2) if on_cpu else (40, 20), (512, 2) if on_cpu else (len(data.train), 10)
    return [
        *guidance_rows(data, images, labels, ptms),
        *step_rows(data, images, labels),
        evaluation(data, *short),
        evaluation(data, *short, BF16),
        five_architectures(data, 12),
        ptm_pool(data, *pool),
        ptm_pool(data, *pool, BF16),
        study_run(data, COMPILED),
        study_run(data, Compute("bf16", "always")),
        *ensemble_rows(data, images, labels, ptms),
    ]


def guidance_rows(data: Dataset, images: torch.Tensor, labels: torch.Tensor, ptms: list[PTM]) -> list[Row]:
    """One PTM: CLoM and CCLoM."""
    batch = data.train.images[:CCLOM_BATCH], data.train.labels[:CCLOM_BATCH]
    part = dataclasses.replace(data, name="part", train=Split(*batch))
    cclom = functools.cache(lambda: Guidance("cclom", ptms[:1]).signals(part, labels))  # sums over 8196 images
    ptm = plain.PlainNetwork(ptms[0].network)
    ours_clom = functools.partial(guided, "single", images, Guidance("clom", ptms[:1]).signals(data, labels))
    plain_clom = functools.partial(plain.clom, ptm, images, labels)

    def ours_cclom():
        return guided("single", images, cclom())

    return [
        Row("CLoM", ours_clom, [Against(1, plain_clom)], {}, floats_read=images.numel(), repeats=9),
        Row(
            "CCLoM, whole real set",
            ours_cclom,
            [Against(1, lambda: plain.cclom(ptm, images, labels, *batch, data.num_classes))],
            {"cpu": 60, "cuda": 20},
            needed=plain_clom,
            floats_read=images.numel(),
            note=f"the plain way with its batch = this real set of {CCLOM_BATCH}, so that both are the same loss",
            repeats=2 if data.device.type == "cpu" else 5,
        ),
        Row(
            "CCLoM against CLoM",
            ours_cclom,
            [Against(1.15, ours_clom, plain=False)],
            {"cpu": 1, "cuda": 1},
            tolerance=None,
            needed=plain_clom,
            floats_read=images.numel(),
            note="at most 1.15 times the time of CLoM",
            repeats=9,
        ),
    ]


def step_rows(data: Dataset, images: torch.Tensor, labels: torch.Tensor) -> list[Row]:
    """One update of DM and of DSA, width 128, 256 real images a class."""
    task = Task(data, labels, Matching(outer_loops=1, inner_loops=1))
    real = sum(min(task.matching.batch_real, len(members)) for members in task.members) * images[0].numel()

    def step(compute: Compute) -> Callable[[], tuple[torch.Tensor, torch.Tensor]]:
        return lambda: base_step("dm", dataclasses.replace(task, compute=compute), images)

    theirs, eager = Against(1, lambda: plain.dm_step(task, images, 0)), Against(1, step(FLOAT32), plain=False)
    row = functools.partial(Row, floats_read=real, repeats=3)
    once = "what compiling takes before the first step is not in here"
    bf16 = {"compute": Compute("bf16", "always"), "tolerance": ROUNDED, "note": once}
    compiled = {"compute": COMPILED, "tolerance": 2e-3, "note": once}  # other rounding moves activations across zero
    return [
        row("DM step", step(FLOAT32), [theirs], {"cpu": 1.5, "cuda": 6}, repeats=4),
        row("DM step, compiled", step(COMPILED), [theirs], {"cpu": 3, "cuda": 6}, **compiled),
        row("DM step, compiled, against ddlib's own", step(COMPILED), [eager], {"cpu": 1.3}, **compiled),
        row("DM step, bf16, compiled", step(bf16["compute"]), [theirs], {"cpu": 5}, **bf16),
        row("DM step, bf16, compiled, against ddlib's own", step(bf16["compute"]), [eager], {"cpu": 2.3}, **bf16),
        row(
            "DSA matching step",
            lambda: base_step("dsa", task, images),
            [Against(1, lambda: plain.matching_step(task, images, 0, DSA_STRATEGY))],
            {"cpu": 1.8, "cuda": 5},
            repeats=2 if data.device.type == "cpu" else 5,
        ),
    ]


def ensemble_rows(data: Dataset, images: torch.Tensor, labels: torch.Tensor, ptms: list[PTM]) -> list[Row]:
    """A step with ten PTMs."""
    task = Task(data, labels, Matching())
    clom = Guidance("clom", ptms).signals(data, labels)
    step = functools.partial(base_step, "dm", task, images)
    ours_clom = functools.partial(guided, "single", images, clom)
    plain_clom = functools.partial(plain.clom, plain.PlainNetwork(ptms[0].network), images, labels)

    def step_with_ten():
        base, said = step(), guided("loss_avg", images, clom)
        return base[0] + said[0], base[1] + said[1]

    def step_with_one():
        base, said = step(), ours_clom()
        return base[0] + said[0], base[1] + said[1]

    ten = functools.partial(Row, ours=step_with_ten, tolerance=None, needed=step_with_ten, repeats=3)
    own = [Against(1, step, plain=False), Against(8, ours_clom, plain=False)]
    if data.device.type != "cpu":
        own = [Against(1.5, step_with_one, plain=False)]
    return [
        ten(
            "DM step with ten PTMs, loss_avg",
            against=[Against(1, step, plain=False), Against(8, plain_clom)],
            targets={"cpu": 1},
            note="at most the step without guidance + 10 x (the plain CLoM of one PTM) x 0.8",
        ),
        ten(
            "the same, by ddlib's own CLoM",
            against=own,
            targets={"cpu": 1, "cuda": 1},
            note="at most the same with ddlib's own CLoM; on a GPU, 1.5 x the step with one PTM",
        ),
    ]


def study_run(data: Dataset, compute: Compute) -> Row:
    """Some iterations of DM + CLoM as the study makes them, beside ddlib's own float32 way."""
    ptms = random_ptms(data, 5, width=32)
    settings = {"ipc": 10, "width": 32, "batch_real": 64, "guidance": "clom", "strategy": "loss_avg", "ptms": ptms}
    settings |= {"iterations": 5, "log_every": 1000}  # compared once, at the start

    def images_after(compute: Compute) -> list[torch.Tensor]:
        return [distill(data, **settings, **dataclasses.asdict(compute)).synthetic.images]

    return Row(
        named("DM + CLoM of five PTMs as in the study", compute),
        lambda: images_after(compute),
        [Against(1, lambda: images_after(FLOAT32), plain=False)],
        {"cpu": 2} if compute.precision == "bf16" else {},
        tolerance=ROUNDED,
        note="width 32, 64 real images a class, against ddlib's float32, not compiled; difference: of the images after "
        f"{settings['iterations']} iterations",
        repeats=3,
        compute=compute,
    )


def named(work: str, compute: Compute) -> str:
    """The name of a row, with how its networks compute."""
    return ", ".join([work, *["bf16"] * (compute.precision == "bf16"), *["compiled"] * (compute.compile == "always")])


def evaluation(data: Dataset, epochs: int, networks: int, compute: Compute = FLOAT32) -> Row:
    """Fresh networks trained with DSA on real images, which can be learned, then tested; shortened."""
    synthetic = select_real(data, 10)
    images, labels = synthetic.images, synthetic.labels
    test = TensorDataset(data.test.images.cpu(), data.test.labels.cpu())
    sizes = (data.channels, data.num_classes, data.image_size)

    def ours():
        table = evaluate(synthetic, data, ["ConvNet-3"], networks, epochs, **dataclasses.asdict(compute))
        return [torch.tensor(table["accuracy"].tolist())]

    def theirs():
        accuracies = []
        for index in range(networks):
            weights = generator(0, "evaluation ConvNet-3", index)
            network = build_network("ConvNet-3", *sizes, generator=weights, device=data.device)
            draw = generator(0, "evaluation training ConvNet-3", index)
            accuracies.append(plain.evaluation(network, images, labels, test, epochs, draw))
        return [torch.tensor(accuracies)]

    return Row(
        named(f"evaluation: {networks} networks, DSA, tested", compute),
        ours,
        [Against(1, theirs)],
        {"cpu": 3.5} if compute.precision == "bf16" else {"cpu": 1.8, "cuda": 12},
        tolerance=0.05,
        floats_read=networks * (epochs * images.numel() + data.test.images.numel()),
        note=f"{epochs} epochs of {len(images)} images, tested on {len(data.test)}; difference: of the accuracies",
        repeats=3,
        compute=compute,
    )


def five_architectures(data: Dataset, epochs: int) -> Row:
    """One network of each, width 32, as the study judges a set; beside ddlib's own float32 way."""
    synthetic = select_real(data, 10)

    def accuracies(compute: Compute) -> list[torch.Tensor]:
        table = evaluate(synthetic, data, list(NETWORKS), 1, epochs, width=32, **dataclasses.asdict(compute))
        return [torch.tensor(table["accuracy"].tolist())]

    return Row(
        named("evaluation of all five architectures", BF16),
        lambda: accuracies(BF16),
        [Against(1, lambda: accuracies(FLOAT32), plain=False)],
        {"cpu": 1.8},
        tolerance=0.5,
        note=f"{epochs} epochs of 100 images, width 32, against float32; difference: of accuracies after so few",
        repeats=3,
        compute=BF16,
    )


def ptm_pool(data: Dataset, count: int, networks: int, compute: Compute = FLOAT32) -> Row:
    """PTMs trained by the recipe of the paper's code, from uint8 pictures there."""
    pictures = (data.denormalise(data.train.images[:count]) * 255).clamp(0, 255).byte()
    seen = data.normalise(pictures.float() / 255)
    loader = plain.Pictures(
        pictures.permute(0, 2, 3, 1).cpu().numpy(),
        data.train.labels[:count].tolist(),
        list(data.format.mean),
        list(data.format.std),
    )
    sizes = (data.channels, data.num_classes, data.image_size)

    def fresh(index: int):
        weights = generator(0, "ptm", index)
        return build_network("ConvNet-3", *sizes, generator=weights, device=data.device)

    def ours():
        trained = [compute.applied_to(fresh(index)) for index in range(networks)]
        for index, network in enumerate(trained):
            train_network(
                network,
                seen,
                data.train.labels[:count],
                epochs=1,
                generator=generator(0, "training", index),
                weight_decay=0.005,
            )
        return [parameter.detach() for network in trained for parameter in network.parameters()]

    def theirs():
        trained = [fresh(index) for index in range(networks)]
        for index, network in enumerate(trained):
            plain.ptm_training(network, loader, 1, generator(0, "training", index), data.device)
        return [parameter.detach() for network in trained for parameter in network.parameters()]

    return Row(
        named(f"PTM pool: {networks} ConvNet-3", compute),
        ours,
        [Against(1, theirs)],
        {"cpu": 3} if compute.precision == "bf16" else {"cpu": 1.5, "cuda": 5},
        tolerance=ROUNDED if compute.precision == "bf16" else 1e-3,
        floats_read=networks * seen.numel(),
        note=f"one epoch of {count} images; difference: of the weights after it",
        repeats=3,
        compute=compute,
    )
