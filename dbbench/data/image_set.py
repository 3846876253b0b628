"""What a loaded image set is, and the checks that every one of them passes, whatever it was read from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from dbbench.errors import BadInput


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images of one size with integer labels, in a training and a test part.

    Images are uint8 ``[N, H, W, C]`` with C = 1 or 3; labels are int64 ``[N]`` in ``0..len(classes) - 1``, and each
    class occurs in both parts. ``sha256`` is `content_sha256` of the four arrays; ``source`` and ``licence`` say
    where they come from, without a path of this machine.
    """

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    classes: tuple[str, ...]
    sha256: str
    source: str
    licence: str


@dataclass(frozen=True)
class About:
    """What is said of a set in words. ``origin`` (a file or folder) opens a complaint and is not kept."""

    name: str
    origin: str
    source: str
    licence: str


Part = tuple[np.ndarray, np.ndarray]


def content_sha256(*arrays: np.ndarray) -> str:
    """Return the SHA-256 (hex) of the arrays' dtype, shape and little-endian bytes in C order, one after another."""
    digest = hashlib.sha256()
    for array in arrays:
        plain = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        digest.update(f"{plain.dtype.name} {plain.shape}\n".encode())
        digest.update(plain.data)
    return digest.hexdigest()


def make_image_set(about: About, train: Part, test: Part, classes: tuple[str, ...], where: str) -> ImageSet:
    """Check both parts ``(images, labels)`` and return them as an `ImageSet`; labels of any integer type will do.

    Raises `BadInput` that names ``where`` and ``about.origin`` for a wrong shape, type, label or a missing class.
    """
    complaint = f"{where}: {about.origin}"
    if len(classes) < 2:
        raise BadInput(f"{complaint}: {len(classes)} class(es), at least 2 needed to classify")
    checked = [_check_part(f"{complaint}: {part}", images, labels, classes)
               for part, (images, labels) in (("training part", train), ("test part", test))]  # fmt: skip
    (train_images, train_labels), (test_images, test_labels) = checked
    if train_images.shape[1:] != test_images.shape[1:]:
        shapes = f"training images are {train_images.shape[1:]}, test images {test_images.shape[1:]}"
        raise BadInput(f"{complaint}: {shapes} (height, width, channels)")
    sha256 = content_sha256(train_images, train_labels, test_images, test_labels)
    return ImageSet(
        about.name, train_images, train_labels, test_images, test_labels, classes, sha256, about.source, about.licence
    )


def _check_part(complaint: str, images: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]) -> Part:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3) or 0 in images.shape:
        raise BadInput(f"{complaint}: images are {images.dtype} {images.shape}, not uint8 (N, height, width, 1 or 3)")
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise BadInput(f"{complaint}: labels are {labels.dtype} {labels.shape}, not integers (N,)")
    if len(labels) != len(images):
        raise BadInput(f"{complaint}: {len(images)} images but {len(labels)} labels")
    if labels.min() < 0 or labels.max() >= len(classes):
        raise BadInput(f"{complaint}: labels run from {labels.min()} to {labels.max()}, not 0 to {len(classes) - 1}")
    absent = np.flatnonzero(np.bincount(labels, minlength=len(classes)) == 0)
    if len(absent):
        raise BadInput(f"{complaint}: no image of class {absent[0]} ({classes[absent[0]]})")
    if images.min() == images.max():
        raise BadInput(f"{complaint}: every pixel is {images.min()}")
    # torch.from_numpy warns of an array that cannot be written, as one read straight from a file's bytes is.
    return np.require(images, requirements=["C", "W"]), labels.astype(np.int64)
