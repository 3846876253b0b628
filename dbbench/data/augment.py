"""Augmentation of training images: pad-crop-flip, and RandAugment, in torch alone and deterministic by generator.

It works on real tensors while a batch is made, outside the measured step: its shapes depend on what was drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dbbench.errors import BadInput, did_you_mean

Augmentation = Literal["none", "crop_flip", "rand_augment"]

PADDING_PIXELS = 4
ROUNDS = 2  # N of RandAugment
MAGNITUDE = 9  # M of RandAugment, of 30


def augment(name: Augmentation, images: Tensor, generator: torch.Generator) -> Tensor:
    """Return ``images`` (uint8 ``[N, C, H, W]``, C = 1 or 3) augmented, each by its own draw from ``generator``.

    ``none`` returns them as they are; ``crop_flip`` pads by 4 black pixels, crops to size and mirrors half of them;
    ``rand_augment`` is `rand_augment`. Raises `BadInput` for another name.
    """
    table = {"none": lambda images, generator: images, "crop_flip": crop_flip, "rand_augment": rand_augment}
    if name not in table:
        raise BadInput(f"augmentation: unknown '{name}'{did_you_mean(name, table)}")
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"images are {images.dtype} {tuple(images.shape)}, not uint8 [N, 1 or 3, H, W]")
    return table[name](images, generator)


def crop_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Pad by `PADDING_PIXELS` black pixels, crop each image at a random place, and mirror it with probability 1/2."""
    n, _, height, width = images.shape
    top, left = _draw(2 * PADDING_PIXELS + 1, (2, n), images, generator)
    mirrored = _draw(2, (n, 1), images, generator).bool()
    rows = top[:, None] + torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device).expand(n, -1)
    columns = left[:, None] + torch.where(mirrored, columns.flip(1), columns)
    padded = F.pad(images, [PADDING_PIXELS] * 4)
    image = torch.arange(n, device=images.device)
    # Indices on both sides of the channels' slice put the channels last.
    return padded[image[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def rand_augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Apply to each image `ROUNDS` operations of `OPERATIONS`, drawn with replacement, at `MAGNITUDE` of 30.

    RandAugment (Cubuk, Zoph, Shlens, Le 2020, arXiv 1909.13719): operations and ranges as AutoAugment's, a signed
    amount positive or negative with equal probability, nearest pixels, black where there is none.
    """
    n = len(images)
    operation = _draw(len(OPERATIONS), (ROUNDS, n), images, generator)
    sign = 1 - 2 * _draw(2, (ROUNDS, n), images, generator)
    for round_operation, round_sign in zip(operation, sign, strict=True):
        changed = images.clone()
        for index, entry in enumerate(OPERATIONS):
            chosen = (round_operation == index).nonzero().squeeze(1)
            if len(chosen):
                amount = entry.low + (entry.high - entry.low) * MAGNITUDE / 30
                amounts = torch.full((len(chosen),), amount, dtype=torch.float64, device=images.device)
                changed[chosen] = entry.apply(images[chosen], amounts * round_sign[chosen] if entry.signed else amounts)
        images = changed
    return images


def _draw(count: int, shape: tuple[int, ...], images: Tensor, generator: torch.Generator) -> Tensor:
    """Draw integers 0..count-1 where the generator lives, and return them where the images do."""
    return torch.randint(count, shape, generator=generator, device=generator.device).to(images.device)


# Geometry: where each pixel of the result is taken from.


def affine(images: Tensor, matrix: Tensor, shift: Tensor) -> Tensor:
    """Give each pixel the value at ``matrix @ (x, y) + shift``, its own place being (x, y); black outside.

    Places are in pixels, a pixel's centre at one half and the origin in the top left corner, as in Pillow's
    ``Image.transform``. ``matrix`` is ``[N, 2, 2]`` and ``shift`` ``[N, 2]``; the nearest pixel is taken.
    """
    channels, height, width = images.shape[1:]
    y, x = torch.meshgrid(
        *(torch.arange(size, dtype=torch.float64, device=images.device) + 0.5 for size in (height, width)),
        indexing="ij",
    )
    place = matrix @ torch.stack([x.flatten(), y.flatten()]) + shift[:, :, None]
    column, row = place.floor().long().unbind(1)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    source = (row * width + column).where(inside, 0)
    values = images.flatten(2).gather(2, source[:, None].expand(-1, channels, -1))
    return (values * inside[:, None]).view_as(images)


def _matrix(rows: list[list[Tensor]]) -> Tensor:
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)


def shear_x(images: Tensor, amounts: Tensor) -> Tensor:
    """Move each row left by ``amounts`` pixels more than the one above it, about the top edge."""
    one, zero = torch.ones_like(amounts), torch.zeros_like(amounts)
    return affine(images, _matrix([[one, amounts], [zero, one]]), torch.stack([zero, zero], dim=1))


def shear_y(images: Tensor, amounts: Tensor) -> Tensor:
    """Move each column up by ``amounts`` pixels more than the one left of it, about the left edge."""
    one, zero = torch.ones_like(amounts), torch.zeros_like(amounts)
    return affine(images, _matrix([[one, zero], [amounts, one]]), torch.stack([zero, zero], dim=1))


def translate_x(images: Tensor, amounts: Tensor) -> Tensor:
    """Move each image left by ``amounts`` of its width, to whole pixels."""
    one, zero = torch.ones_like(amounts), torch.zeros_like(amounts)
    shift = torch.stack([(amounts * images.shape[3]).round(), zero], dim=1)
    return affine(images, _matrix([[one, zero], [zero, one]]), shift)


def translate_y(images: Tensor, amounts: Tensor) -> Tensor:
    """Move each image up by ``amounts`` of its height, to whole pixels."""
    one, zero = torch.ones_like(amounts), torch.zeros_like(amounts)
    shift = torch.stack([zero, (amounts * images.shape[2]).round()], dim=1)
    return affine(images, _matrix([[one, zero], [zero, one]]), shift)


def rotate(images: Tensor, amounts: Tensor) -> Tensor:
    """Turn each image about its centre by ``amounts`` degrees, counter-clockwise."""
    cos, sin = (amounts * math.pi / 180).cos(), (amounts * math.pi / 180).sin()
    matrix = _matrix([[cos, -sin], [sin, cos]])
    centre = torch.tensor([images.shape[3] / 2, images.shape[2] / 2], dtype=amounts.dtype, device=images.device)
    return affine(images, matrix, centre - matrix @ centre)


# Blends: towards a degenerate image (amount -1), or as far beyond the image itself (amount +1).


def _blend(images: Tensor, degenerate: Tensor, amounts: Tensor) -> Tensor:
    factor = (1 + amounts).float()[:, None, None, None]
    return (degenerate + factor * (images - degenerate)).clamp(0, 255).to(torch.uint8)


def _grey(images: Tensor) -> Tensor:
    """Return the luma (ITU-R BT.601) of the images, rounded, float ``[N, 1, H, W]``."""
    if images.shape[1] == 1:
        return images.float()
    weights = torch.tensor([0.299, 0.587, 0.114], device=images.device).view(3, 1, 1)
    return (images * weights).sum(1, keepdim=True).round()


def brightness(images: Tensor, amounts: Tensor) -> Tensor:
    """Blend with black."""
    return _blend(images, torch.zeros_like(images, dtype=torch.float32), amounts)


def color(images: Tensor, amounts: Tensor) -> Tensor:
    """Blend with the grey image."""
    return _blend(images, _grey(images), amounts)


def contrast(images: Tensor, amounts: Tensor) -> Tensor:
    """Blend with the image's mean grey."""
    return _blend(images, _grey(images).mean((1, 2, 3), keepdim=True).round(), amounts)


def sharpness(images: Tensor, amounts: Tensor) -> Tensor:
    """Blend with the image smoothed by (1 1 1; 1 5 1; 1 1 1) / 13, its border left as it is."""
    smooth = images.float()
    if min(images.shape[2:]) >= 3:
        kernel = torch.ones(1, 1, 3, 3, device=images.device)
        kernel[0, 0, 1, 1] = 5
        inner = F.conv2d(smooth.flatten(0, 1)[:, None], kernel / 13).round()
        smooth[:, :, 1:-1, 1:-1] = inner.view_as(smooth[:, :, 1:-1, 1:-1])
    return _blend(images, smooth, amounts)


# Tables: each value of a channel becomes another.


def _look_up(images: Tensor, tables: Tensor) -> Tensor:
    """Replace each value by its entry in the channel's own table, float or int ``[N, C, 256]``, rounded down."""
    return tables.clamp(0, 255).to(torch.uint8).gather(2, images.flatten(2).long()).view_as(images)


def identity(images: Tensor, amounts: Tensor) -> Tensor:
    """Leave the images as they are."""
    return images


def posterize(images: Tensor, amounts: Tensor) -> Tensor:
    """Keep the highest ``amounts`` bits of each value, rounded."""
    keep = 256 - 2 ** (8 - amounts.round())
    return images & keep.to(torch.uint8)[:, None, None, None]


def solarize(images: Tensor, amounts: Tensor) -> Tensor:
    """Invert the values at or above ``amounts``."""
    return torch.where(images >= amounts[:, None, None, None], 255 - images, images)


def autocontrast(images: Tensor, amounts: Tensor) -> Tensor:
    """Stretch each channel from its own range to 0..255."""
    low, high = (bound.double()[..., None] for bound in images.flatten(2).aminmax(dim=2))
    values = torch.arange(256, dtype=torch.float64, device=images.device)
    scale = values[-1] / (high - low)
    return _look_up(images, torch.where(high > low, values * scale - low * scale, values))


def equalize(images: Tensor, amounts: Tensor) -> Tensor:
    """Flatten each channel's histogram; one too small to fill the range (fewer than 255 pixels) stays as it is."""
    flat = images.flatten(2).long()
    counts = torch.zeros(*flat.shape[:2], 256, dtype=torch.long, device=images.device)
    counts.scatter_add_(2, flat, torch.ones_like(flat))
    highest = flat.amax(2, keepdim=True)
    step = (flat.shape[2] - counts.gather(2, highest)) // 255
    below = counts.cumsum(2) - counts
    tables = (below + step // 2) // step.clamp(min=1)
    return _look_up(images, torch.where(step > 0, tables, torch.arange(256, device=images.device)))


class Operation(NamedTuple):
    """An operation and its amounts at magnitudes 0 and 30; a signed one may also be applied with the amount negated."""

    apply: Callable[[Tensor, Tensor], Tensor]
    low: float
    high: float
    signed: bool


#: The operations of RandAugment's table, with AutoAugment's ranges (Cubuk et al. 2019, arXiv 1805.09501, table 6),
#: whose translations were given in pixels of 331.
OPERATIONS = (
    Operation(identity, 0.0, 0.0, signed=False),
    Operation(shear_x, 0.0, 0.3, signed=True),
    Operation(shear_y, 0.0, 0.3, signed=True),
    Operation(translate_x, 0.0, 150 / 331, signed=True),
    Operation(translate_y, 0.0, 150 / 331, signed=True),
    Operation(rotate, 0.0, 30.0, signed=True),
    Operation(brightness, 0.0, 0.9, signed=True),
    Operation(color, 0.0, 0.9, signed=True),
    Operation(contrast, 0.0, 0.9, signed=True),
    Operation(sharpness, 0.0, 0.9, signed=True),
    Operation(posterize, 8.0, 4.0, signed=False),
    Operation(solarize, 256.0, 0.0, signed=False),
    Operation(autocontrast, 0.0, 0.0, signed=False),
    Operation(equalize, 0.0, 0.0, signed=False),
)
