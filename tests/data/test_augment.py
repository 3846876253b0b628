"""Augmentations against Pillow's own implementations, and against properties that geometry has."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from dbbench.data import augment as module
from dbbench.data.augment import OPERATIONS, Augmentation, augment
from dbbench.errors import BadInput


def _images(n: int, channels: int, size: int = 28, seed: int = 0) -> Tensor:
    """Smooth random images of unequal contrast, so that every operation has something to change."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, channels, 7, 7, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (size, size + 4), mode="bilinear")
    span = torch.linspace(60, 255, n).view(-1, 1, 1, 1)
    return (smooth * span).to(torch.uint8)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _by_pillow(images: Tensor, change: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    arrays = [image.squeeze(0).numpy() if len(image) == 1 else image.permute(1, 2, 0).numpy() for image in images]
    changed = np.stack([np.asarray(change(Image.fromarray(array))) for array in arrays])
    return changed[:, None] if images.shape[1] == 1 else changed.transpose(0, 3, 1, 2)


def _amounts(images: Tensor, amount: float) -> Tensor:
    return torch.full((len(images),), amount, dtype=torch.float64)


EXACT = {
    "posterize 7": (module.posterize, 7, lambda i: ImageOps.posterize(i, 7)),
    "posterize 4": (module.posterize, 4, lambda i: ImageOps.posterize(i, 4)),
    "posterize 8": (module.posterize, 8, lambda i: i),
    "solarize": (module.solarize, 179.2, lambda i: ImageOps.solarize(i, 179.2)),
    "solarize all": (module.solarize, 0, ImageOps.invert),
    "solarize none": (module.solarize, 256, lambda i: i),
    "autocontrast": (module.autocontrast, 0, ImageOps.autocontrast),
    "equalize": (module.equalize, 0, ImageOps.equalize),
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("case", EXACT)
def test_tables_equal_pillow_to_the_bit(case: str, channels: int) -> None:
    apply, amount, change = EXACT[case]
    images = torch.cat([_images(8, channels), torch.full((1, channels, 28, 32), 77, dtype=torch.uint8)])
    np.testing.assert_array_equal(apply(images, _amounts(images, amount)).numpy(), _by_pillow(images, change))


def test_equalize_equals_pillow_on_few_pixels_and_on_noise() -> None:
    """Few pixels leave no step to equalise by; noise makes tables that run past 255 and must be cut there."""
    for size in (8, 20, 40):
        images = torch.randint(0, 256, (4, 3, size, size), dtype=torch.uint8, generator=_generator())
        expected = _by_pillow(images, ImageOps.equalize)
        np.testing.assert_array_equal(module.equalize(images, _amounts(images, 0)).numpy(), expected)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("amount", [-0.9, -0.27, 0.0, 0.27, 0.9])
@pytest.mark.parametrize("name", ["brightness", "color", "contrast", "sharpness"])
def test_blends_equal_pillow_to_one_level(name: str, amount: float, channels: int) -> None:
    enhance = getattr(ImageEnhance, name.capitalize())
    images = _images(8, channels)
    ours = getattr(module, name)(images, _amounts(images, amount)).numpy().astype(int)
    difference = np.abs(ours - _by_pillow(images, lambda image: enhance(image).enhance(1 + amount)))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.05


def _pillow_affine(a: float, b: float, d: float, e: float) -> Callable[[Image.Image], Image.Image]:
    coefficients = (a, b, 0, d, e, 0)
    return lambda image: image.transform(image.size, Image.Transform.AFFINE, coefficients, Image.Resampling.NEAREST)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("apply", "amount", "change"), [
    (module.shear_x, 0.09, _pillow_affine(1, 0.09, 0, 1)),
    (module.shear_x, -0.3, _pillow_affine(1, -0.3, 0, 1)),
    (module.shear_y, 0.09, _pillow_affine(1, 0, 0.09, 1)),
    (module.rotate, 9, lambda image: image.rotate(9)),
    (module.rotate, -30, lambda image: image.rotate(-30)),
])  # fmt: skip
def test_geometry_equals_pillow(
    apply: Callable[[Tensor, Tensor], Tensor],
    amount: float,
    change: Callable[[Image.Image], Image.Image],
    channels: int,
) -> None:
    """Pillow computes places in fixed point, so that a pixel on the edge of two may fall to the other."""
    images = _images(8, channels)
    differs = apply(images, _amounts(images, amount)).numpy() != _by_pillow(images, change)
    assert differs.mean() < 0.01


def test_a_quarter_turn_is_rot90() -> None:
    images = _images(4, 3)[..., :28]
    assert torch.equal(module.rotate(images, _amounts(images, 90)), images.rot90(1, (2, 3)))
    assert torch.equal(module.rotate(images, _amounts(images, 180)), images.rot90(2, (2, 3)))


def test_translation_moves_whole_pixels_and_leaves_black() -> None:
    images = _images(4, 3) | 1
    moved = module.translate_x(images, _amounts(images, 5 / 32))
    assert torch.equal(moved[..., :-5], images[..., 5:])
    assert not moved[..., -5:].any()
    moved = module.translate_y(images, _amounts(images, -3 / 28))
    assert torch.equal(moved[:, :, 3:], images[:, :, :-3])
    assert not moved[:, :, :3].any()


def test_a_shear_and_its_opposite_leave_the_middle_as_it_was() -> None:
    images = _images(4, 1)
    back = module.shear_x(module.shear_x(images, _amounts(images, 0.25)), _amounts(images, -0.25))
    assert torch.equal(back[..., 8:-8], images[..., 8:-8])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", get_args(Augmentation))
def test_every_augmentation_keeps_shape_and_type_and_follows_its_generator(name: Augmentation, channels: int) -> None:
    """A draw from anywhere else would make two methods train on different images."""
    images = _images(64, channels)
    before = images.clone()
    torch.manual_seed(1)
    first = augment(name, images, _generator(5))
    torch.manual_seed(2)
    assert torch.equal(first, augment(name, images, _generator(5)))
    assert (first.shape, first.dtype) == (images.shape, torch.uint8)
    assert torch.equal(images, before)
    assert (name == "none") == torch.equal(first, augment(name, images, _generator(6)))
    assert (name == "none") == torch.equal(first, images)


def test_crop_flip_gives_each_of_its_162_results_and_no_other() -> None:
    """9 x 9 places, mirrored or not; one image many times over finds each of them about equally often."""
    image = _images(1, 3, 8)
    height, width = image.shape[2:]
    padded = torch.zeros(3, height + 8, width + 8, dtype=torch.uint8)
    padded[:, 4:-4, 4:-4] = image[0]
    possible = {}
    for top in range(9):
        for left in range(9):
            crop = padded[:, top : top + height, left : left + width]
            possible[crop.numpy().tobytes()] = (top, left, False)
            possible[crop.flip(2).numpy().tobytes()] = (top, left, True)
    results = augment("crop_flip", image.expand(8_000, -1, -1, -1), _generator())
    seen = [possible[result.numpy().tobytes()] for result in results]
    assert len(set(seen)) == 162
    assert np.mean([mirrored for *_, mirrored in seen]) == pytest.approx(0.5, abs=0.03)
    assert np.mean([top for top, *_ in seen]) == pytest.approx(4, abs=0.15)


def test_rand_augment_draws_each_operation_alike_and_twice_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = dict.fromkeys(range(len(OPERATIONS)), 0)
    signs: list[Tensor] = []

    def counting(index: int) -> module.Operation:
        def apply(images: Tensor, amounts: Tensor) -> Tensor:
            drawn[index] += len(images)
            if OPERATIONS[index].signed:
                signs.append(amounts.sign())
            return images

        return OPERATIONS[index]._replace(apply=apply)

    monkeypatch.setattr(module, "OPERATIONS", tuple(counting(i) for i in range(len(OPERATIONS))))
    augment("rand_augment", _images(7_000, 1, 8), _generator())
    assert sum(drawn.values()) == 14_000
    assert min(drawn.values()) > 850
    assert max(drawn.values()) < 1_150
    assert torch.cat(signs).mean().abs() < 0.05


def test_an_image_is_augmented_alike_whatever_else_is_in_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Statistics taken over the batch instead of the image would show here."""
    images = _images(14, 3)
    fixed = torch.stack([torch.arange(14), torch.arange(14).flip(0)])
    monkeypatch.setattr(module, "_draw", lambda count, shape, batch, generator: fixed[:, : len(batch)] % count)
    alone = torch.cat([
        module.rand_augment(images[:k], _generator())[k - 1 : k] for k in range(1, 15)
    ])  # fmt: skip
    assert torch.equal(alone, module.rand_augment(images, _generator()))


def test_magnitude_9_of_30_gives_the_published_strengths(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three tenths of the published ranges, by hand."""
    seen = {}

    def noting(entry: module.Operation) -> module.Operation:
        def apply(images: Tensor, amounts: Tensor) -> Tensor:
            seen[entry.apply.__name__] = amounts.abs().unique().item()
            return images

        return entry._replace(apply=apply)

    monkeypatch.setattr(module, "OPERATIONS", tuple(noting(entry) for entry in OPERATIONS))
    augment("rand_augment", _images(500, 1, 8), _generator())
    enhance = dict.fromkeys(["brightness", "color", "contrast", "sharpness"], 0.27)
    assert seen == pytest.approx({
        "identity": 0, "shear_x": 0.09, "shear_y": 0.09, "translate_x": 45 / 331, "translate_y": 45 / 331,
        "rotate": 9, **enhance, "posterize": 6.8, "solarize": 179.2, "autocontrast": 0, "equalize": 0,
    })  # fmt: skip


def test_unknown_names_and_wrong_images_are_refused() -> None:
    with pytest.raises(BadInput, match="did you mean 'crop_flip'"):
        augment("crop-flip", _images(1, 1), _generator())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not uint8"):
        augment("crop_flip", _images(1, 1).float(), _generator())
