"""DSA against plain versions, one image and one pixel at a time, and against its promises."""

import math

import numpy as np
import pytest
import torch
from made import nothing_drawn, seeded

from ddlib.augmentation import DSA_STRATEGY, OPERATIONS, DSAParams, apply_dsa, sample_dsa


def draw(operation, n=1, seed=0):
    return sample_dsa((n, 3, 8, 8), seeded(seed), strategy=operation, siamese=n == 1)


def batch(n=3, channels=3, size=8, seed=1):
    return torch.randn(n, channels, size, size, generator=seeded(seed))


# Plain versions: image [C, H, W] and u, three numbers in [0, 1), as numpy.


def plain_color(image, u):
    image = image + (u[0] - 0.5) * 1.0
    for h, w in np.ndindex(image.shape[1:]):
        grey = image[:, h, w].mean()
        image[:, h, w] = grey + 2.0 * u[1] * (image[:, h, w] - grey)
    mean = image.mean()
    return mean + (u[2] + 0.5) * (image - mean)


def plain_crop(image, u):
    out = np.zeros_like(image)
    height, width = image.shape[1:]
    limits = math.floor(height / 8 + 0.5), math.floor(width / 8 + 0.5)
    dh, dw = (math.floor(u[i] * (2 * limits[i] + 1)) - limits[i] for i in range(2))
    for h, w in np.ndindex(height, width):
        if 0 <= h + dh < height and 0 <= w + dw < width:
            out[:, h, w] = image[:, h + dh, w + dw]
    return out


def plain_cutout(image, u):
    out = image.copy()
    height, width = image.shape[1:]
    assert height % 4 == width % 4 == 0  # so that the square has an even side, and one more place for its centre
    centre_h, centre_w = math.floor(u[0] * (height + 1)), math.floor(u[1] * (width + 1))
    for h, w in np.ndindex(height, width):
        if -height // 4 <= h - centre_h < height // 4 and -width // 4 <= w - centre_w < width // 4:
            out[:, h, w] = 0
    return out


def plain_flip(image, u):
    return image[:, :, ::-1].copy() if u[0] < 0.5 else image


def plain_resample(image, matrix):
    out = np.zeros_like(image)
    side = image.shape[1]
    middle = (side - 1) / 2
    for h, w in np.ndindex(side, side):
        x, y = matrix @ (w - middle, h - middle) + middle
        for row in (math.floor(y), math.floor(y) + 1):
            for column in (math.floor(x), math.floor(x) + 1):
                if 0 <= row < side and 0 <= column < side:
                    weight = (1 - abs(y - row)) * (1 - abs(x - column))
                    out[:, h, w] += weight * image[:, row, column]
    return out


def plain_scale(image, u):
    y, x = (1 / 1.2 + u[i] * (1.2 - 1 / 1.2) for i in range(2))
    return plain_resample(image, np.diag([x, y]))


def plain_rotate(image, u):
    angle = (2 * u[0] - 1) * math.radians(15)
    cosine, sine = math.cos(angle), math.sin(angle)
    return plain_resample(image, np.array([[cosine, -sine], [sine, cosine]]))


PLAIN = {
    "color": plain_color,
    "crop": plain_crop,
    "cutout": plain_cutout,
    "flip": plain_flip,
    "scale": plain_scale,
    "rotate": plain_rotate,
}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("size", [8, 28, 32])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("siamese", [True, False])
def test_against_plain_versions(operation, size, channels, siamese):
    images = batch(4, channels, size).double()
    params = draw(operation, 1 if siamese else 4, seed=size)
    uniform = params.uniform.double().expand(3, 4).T.numpy()
    plain = [PLAIN[operation](image, u) for image, u in zip(images.numpy().copy(), uniform, strict=True)]
    expected = torch.from_numpy(np.stack(plain))
    torch.testing.assert_close(apply_dsa(images, params), expected, rtol=0, atol=2e-5)  # draws have 24 bits


def test_the_names_of_the_strategy_are_the_operations():
    assert DSA_STRATEGY.split("_") == list(OPERATIONS) == list(PLAIN)


@pytest.mark.parametrize(
    ("operation", "uniform"),
    [("color", 0.5), ("crop", 0.5), ("flip", 0.5), ("rotate", 0.5), ("scale", 5 / 11)],
)
def test_the_middle_of_each_range_is_the_identity(operation, uniform):
    """(1 - 1/1.2) / (1.2 - 1/1.2) = 5/11."""
    images = batch()
    params = DSAParams(operation, torch.full((3, 1), uniform))
    torch.testing.assert_close(apply_dsa(images, params), images, rtol=1e-5, atol=1e-5)


def test_a_quarter_turn_is_anticlockwise(monkeypatch):
    monkeypatch.setattr("ddlib.augmentation.ROTATE", 90.0)
    images = batch(size=6)
    turned = apply_dsa(images, DSAParams("rotate", torch.ones(3, 1)))
    torch.testing.assert_close(turned, torch.rot90(images, 1, (2, 3)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("uniform", "shift"), [(0.0, -4), (1 - 2**-24, 4)])
def test_crop_reaches_both_ends_and_not_further(uniform, shift):
    images = batch(size=32)
    out = apply_dsa(images, DSAParams("crop", torch.tensor([[uniform], [0.5], [0.0]])))
    inner = slice(4, -4)
    assert torch.equal(out[:, :, inner], images.roll(-shift, 2)[:, :, inner])
    assert (out[:, :, :4] if shift < 0 else out[:, :, -4:]).abs().max() == 0


def test_shifts_are_uniform():
    """A row counter shows each image's shift: nine values, -4 to 4, equally often."""
    n = 4500
    images = torch.arange(32.0).view(1, 1, 32, 1).expand(n, 1, 32, 32)
    params = sample_dsa(images.shape, seeded(), strategy="crop", siamese=False)
    shifts = apply_dsa(images, params)[:, 0, 16, 16] - 16
    values, counts = shifts.unique(return_counts=True)
    assert values.tolist() == list(range(-4, 5))
    assert (counts - n / 9).abs().max() < 5 * math.sqrt(n * 8 / 81)


def test_cutout_erases_between_a_quarter_and_the_whole_square():
    images = torch.ones(2000, 1, 32, 32)
    params = sample_dsa(images.shape, seeded(), strategy="cutout", siamese=False)
    erased = 1024 - apply_dsa(images, params).sum((1, 2, 3))
    assert erased.min() >= 8 * 8
    assert erased.max() == 16 * 16


def test_half_of_the_images_are_flipped():
    images = torch.arange(8.0).expand(2000, 1, 8, 8)
    params = sample_dsa(images.shape, seeded(), strategy="flip", siamese=False)
    flipped = apply_dsa(images, params)[:, 0, 0, 0] == 7
    assert abs(flipped.sum().item() - 1000) < 5 * math.sqrt(500)


def test_all_operations_are_equally_likely():
    generator, n = seeded(), 3000
    drawn = [sample_dsa((1, 3, 8, 8), generator).operation for _ in range(n)]
    for operation in OPERATIONS:
        assert abs(drawn.count(operation) - n / 6) < 5 * math.sqrt(n * 5 / 36)


def test_only_the_named_operations_are_drawn():
    generator = seeded()
    drawn = {sample_dsa((1, 3, 8, 8), generator, strategy="flip_crop").operation for _ in range(50)}
    assert drawn == {"flip", "crop"}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("n", [1, 2])
def test_gradients(operation, n):
    images = batch(2, 2, 6).double().requires_grad_()
    params = draw(operation, n)
    assert torch.autograd.gradcheck(lambda x: apply_dsa(x, params), (images,))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_siamese_draws_fit_every_batch(operation):
    """Real and synthetic batches share one draw; what happens to an image does not depend on the others."""
    params = draw(operation)
    images = batch(7)
    whole = apply_dsa(images, params)
    torch.testing.assert_close(apply_dsa(images[2:5], params), whole[2:5])
    alike = apply_dsa(images[:1].expand(4, -1, -1, -1), params)
    assert all(torch.equal(alike[0], image) for image in alike)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_per_image_draws_are_one_per_image(operation):
    images = batch(1).expand(16, -1, -1, -1)
    params = draw(operation, 16)
    out = apply_dsa(images, params)
    assert not torch.equal(out[0].expand_as(out), out)
    for i in (0, 7, 15):
        alone = apply_dsa(images[:1], DSAParams(operation, params.uniform[:, i : i + 1]))
        torch.testing.assert_close(out[i], alone[0])


def test_a_seed_fixes_the_draw():
    first, second, other = (sample_dsa((5, 3, 8, 8), seeded(s), siamese=False) for s in (3, 3, 4))
    assert first.operation == second.operation
    assert torch.equal(first.uniform, second.uniform)
    assert not torch.equal(first.uniform, other.uniform)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_applying_is_pure(operation):
    """It draws nothing, repeats itself, and leaves its input alone."""
    images = batch()
    copy, params = images.clone(), draw(operation)
    with nothing_drawn():
        first, second = apply_dsa(images, params), apply_dsa(images, params)
    assert torch.equal(first, second)
    assert torch.equal(images, copy)


@pytest.mark.parametrize("strategy", ["none", ""])
def test_no_augmentation(strategy):
    images = batch()
    assert apply_dsa(images, sample_dsa(images.shape, seeded(), strategy)) is images


@pytest.mark.parametrize("operation", OPERATIONS)
def test_type_and_device_are_those_of_the_images(operation):
    for dtype in (torch.float32, torch.float64):
        assert apply_dsa(batch().to(dtype), draw(operation)).dtype == dtype
    elsewhere = torch.empty(4, 3, 8, 8, device="meta")
    for n in (1, 4):
        out = apply_dsa(elsewhere, draw(operation, n))
        assert (out.device.type, out.shape) == ("meta", elsewhere.shape)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_gpu_gives_the_same_images(operation, gpu):
    images, params = batch(4), draw(operation, 4)
    torch.testing.assert_close(apply_dsa(images.to("cuda"), params).cpu(), apply_dsa(images, params))


def test_errors():
    with pytest.raises(ValueError, match="unknown operation 'blur' in strategy 'crop_blur'; known: color, crop"):
        sample_dsa((2, 3, 8, 8), seeded(), strategy="crop_blur")
    with pytest.raises(ValueError, match="drawn for 5 images, but the batch has 3"):
        apply_dsa(batch(3), draw("color", 5))
