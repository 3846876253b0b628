"""The whole of Fashion-MNIST from its four gzipped idx files: a folder of them, or Debian's package.

The idx format, as LeCun's MNIST page gives it: two zero bytes, a type (8 = unsigned byte), the number of dimensions,
each dimension as a big-endian 32-bit integer, then the bytes in C order.
"""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from pathlib import Path

import numpy as np

from dbbench.data.image_set import About, ImageSet, make_image_set
from dbbench.data.reading import find_folder, read_bytes
from dbbench.errors import BadInput

CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")


def load_fashion_mnist(*, where: str, folder: str | None = None) -> ImageSet:
    """Return the 60,000 training and 10,000 test images, 28 x 28 x 1."""
    if folder is not None:
        path = find_folder(folder, where)
    elif DEBIAN_FOLDER.is_dir():
        path = DEBIAN_FOLDER
    else:
        remedy = "give 'folder', or install Debian's package: apt install dataset-fashion-mnist"
        raise BadInput(f"{where}: {DEBIAN_FOLDER}: there is no such folder; {remedy}")
    parts = []
    for prefix, count in (("train", 60_000), ("t10k", 10_000)):
        images = _read_idx(path / f"{prefix}-images-idx3-ubyte.gz", (count, 28, 28), where)
        labels_path = path / f"{prefix}-labels-idx1-ubyte.gz"
        labels = _read_idx(labels_path, (count,), where)
        if labels.max() >= len(CLASSES):
            raise BadInput(f"{where}: {labels_path}: label {labels.max()} of image {labels.argmax()} is not in 0..9")
        parts.append((images[..., None], labels))
    about = About(
        name="fashion_mnist",
        origin=str(path),
        source="Fashion-MNIST (Xiao, Rasul, Vollgraf 2017)",
        licence="MIT, Copyright (c) 2017 Zalando SE",
    )
    return make_image_set(about, parts[0], parts[1], CLASSES, where)


def _read_idx(path: Path, shape: tuple[int, ...], where: str) -> np.ndarray:
    """Return the uint8 array of ``shape`` in a gzipped idx file, or raise `BadInput`."""
    header = struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape)
    expected_bytes = len(header) + int(np.prod(shape))
    packed = read_bytes(path, where)
    try:
        # One byte more than there should be shows a longer file without unpacking all of it.
        content = gzip.GzipFile(fileobj=io.BytesIO(packed)).read(expected_bytes + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise BadInput(f"{where}: {path}: not a whole gzip file: {error}") from error
    if content[:4] != header[:4]:
        raise BadInput(f"{where}: {path}: begins with {content[:4].hex()}, not with idx magic {header[:4].hex()}")
    if content[4 : len(header)] != header[4:]:
        raise BadInput(f"{where}: {path}: its header does not give the shape {shape}")
    if len(content) != expected_bytes:
        amount = "more" if len(content) > expected_bytes else f"{len(content)} bytes, fewer"
        raise BadInput(f"{where}: {path}: unpacks to {amount} than the {expected_bytes} bytes of {shape}")
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape)
