"""Whole Fashion-MNIST and CIFAR folders, written here byte by byte from their published formats.

Each image carries its own number in its first pixels, so that a test can tell whether order and layout survive.
"""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest


def _numbered_labels(count: int, classes: int) -> np.ndarray:
    return (np.arange(count) * 7 % classes).astype(np.uint8)


@pytest.fixture(scope="session")
def idx_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Fashion-MNIST folder: image i holds i, big-endian, in its first four pixels; its label is 7 i mod 10."""
    folder = tmp_path_factory.mktemp("fashion")
    for prefix, count in (("train", 60_000), ("t10k", 10_000)):
        images = np.zeros((count, 784), np.uint8)
        images[:, :4] = np.arange(count, dtype=">u4").view(np.uint8).reshape(count, 4)
        content = struct.pack(">4I", 0x803, count, 28, 28) + images.tobytes()
        (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(content, 1))
        labels = struct.pack(">2I", 0x801, count) + _numbered_labels(count, 10).tobytes()
        (folder / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels, 1))
    return folder


def _cifar_records(first: int, count: int, *label_classes: int) -> bytes:
    """Image i holds i in row 2, column 5: its three bytes, low first, in red, green and blue."""
    planes = np.zeros((count, 3, 32, 32), np.uint8)
    numbers = np.arange(first, first + count, dtype="<u4").view(np.uint8).reshape(count, 4)
    planes[:, :, 2, 5] = numbers[:, :3]
    labels = [_numbered_labels(count, classes)[:, None] for classes in label_classes]
    return np.concatenate([*labels, planes.reshape(count, -1)], axis=1).tobytes()


@pytest.fixture(scope="session")
def cifar10_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cifar10") / "cifar-10-batches-bin"
    folder.mkdir()
    for i in range(5):
        (folder / f"data_batch_{i + 1}.bin").write_bytes(_cifar_records(10_000 * i, 10_000, 10))
    (folder / "test_batch.bin").write_bytes(_cifar_records(0, 10_000, 10))
    (folder / "batches.meta.txt").write_text("\n".join(f"name{i}" for i in range(10)) + "\n\n")
    return folder


@pytest.fixture(scope="session")
def cifar100_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cifar100")
    (folder / "train.bin").write_bytes(_cifar_records(0, 50_000, 20, 100))
    (folder / "test.bin").write_bytes(_cifar_records(0, 10_000, 20, 100))
    return folder


@pytest.fixture
def with_file(tmp_path: Path) -> Callable[[Path, str, bytes | None], Path]:
    """Return a function: a copy of a folder (by links) in which one file has other bytes, or is missing."""

    def make(folder: Path, name: str, content: bytes | None) -> Path:
        for path in folder.iterdir():
            if path.name != name:
                (tmp_path / path.name).symlink_to(path)
        if content is not None:
            (tmp_path / name).write_bytes(content)
        return tmp_path

    return make
