"""CIFAR-10 and CIFAR-100 from a local folder of their *binary version* (the Python version is pickled).

A record is its label byte, or for CIFAR-100 the coarse and the fine one, then 3,072 bytes: the red, green and blue
planes of a 32 x 32 image (Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dbbench.data.image_set import About, ImageSet, make_image_set
from dbbench.data.reading import find_folder, read_bytes
from dbbench.errors import BadInput, did_you_mean


@dataclass(frozen=True)
class _Version:
    """One archive: its folder, its files, the classes of each label byte, and the file of names of each."""

    name: str
    title: str
    sub_folder: str
    train_files: tuple[str, ...]
    test_file: str
    records_per_train_file: int
    label_classes: tuple[int, ...]
    names_files: tuple[str, ...]


_CIFAR10 = _Version(
    name="cifar10",
    title="CIFAR-10",
    sub_folder="cifar-10-batches-bin",
    train_files=tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
    test_file="test_batch.bin",
    records_per_train_file=10_000,
    label_classes=(10,),
    names_files=("batches.meta.txt",),
)
_CIFAR100 = _Version(
    name="cifar100",
    title="CIFAR-100",
    sub_folder="cifar-100-binary",
    train_files=("train.bin",),
    test_file="test.bin",
    records_per_train_file=50_000,
    label_classes=(20, 100),
    names_files=("coarse_label_names.txt", "fine_label_names.txt"),
)
_TEST_RECORDS = 10_000


def load_cifar10(*, where: str, folder: str | None = None) -> ImageSet:
    """Return CIFAR-10: 50,000 and 10,000 images, 32 x 32 x 3, 10 classes."""
    return _load(_CIFAR10, 0, folder, where)


def load_cifar100(*, where: str, folder: str | None = None, labels: str = "fine") -> ImageSet:
    """Return CIFAR-100: 50,000 and 10,000 images, 32 x 32 x 3, 100 ``fine`` or 20 ``coarse`` classes."""
    bytes_by_name = {"coarse": 0, "fine": 1}
    if labels not in bytes_by_name:
        raise BadInput(f"{where}: labels: '{labels}' is not a kind of label{did_you_mean(labels, bytes_by_name)}")
    return _load(_CIFAR100, bytes_by_name[labels], folder, where)


def _load(version: _Version, label_byte: int, folder: str | None, where: str) -> ImageSet:
    if folder is None:
        raise BadInput(f"{where}: '{version.name}' needs 'folder': its binary version, with {version.test_file} in it")
    path = find_folder(folder, where)
    if (path / version.sub_folder).is_dir():
        path = path / version.sub_folder
    if not (path / version.test_file).exists() and any((path / name).exists() for name in ("batches.meta", "meta")):
        raise BadInput(f"{where}: {path}: this is the pickled Python version; the binary version is needed")
    records_per_file = version.records_per_train_file
    loaded = [_read_records(path / name, records_per_file, version, where) for name in version.train_files]
    train_images, train_labels = (np.concatenate(arrays) for arrays in zip(*loaded, strict=True))
    test_images, test_labels = _read_records(path / version.test_file, _TEST_RECORDS, version, where)
    classes = _class_names(path / version.names_files[label_byte], version.label_classes[label_byte], where)
    about = About(
        name=version.name,
        origin=str(path),
        source=f"{version.title} (Krizhevsky 2009), binary version, {len(classes)} classes",
        licence="none stated by its author",
    )
    train, test = (train_images, train_labels[:, label_byte]), (test_images, test_labels[:, label_byte])
    return make_image_set(about, train, test, classes, where)


def _read_records(path: Path, count: int, version: _Version, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the images, uint8 ``[count, 32, 32, 3]``, and all label bytes, uint8 ``[count, 1 or 2]``."""
    label_bytes = len(version.label_classes)
    record_bytes = label_bytes + 3 * 32 * 32
    content = read_bytes(path, where, expected_bytes=count * record_bytes)
    records = np.frombuffer(content, np.uint8).reshape(count, record_bytes)
    labels = records[:, :label_bytes]
    wrong = np.argwhere(labels >= np.array(version.label_classes))
    if len(wrong):
        record, column = wrong[0]
        complaint = f"record {record} has label {labels[record, column]}, not 0..{version.label_classes[column] - 1}"
        raise BadInput(f"{where}: {path}: {complaint}")
    return np.ascontiguousarray(records[:, label_bytes:].reshape(count, 3, 32, 32).transpose(0, 2, 3, 1)), labels


def _class_names(path: Path, count: int, where: str) -> tuple[str, ...]:
    """Return the names in the archive's own list, or the numbers where the list was left behind."""
    if not path.exists():
        return tuple(str(i) for i in range(count))
    try:
        names = tuple(read_bytes(path, where).decode().split())
    except UnicodeDecodeError as error:
        raise BadInput(f"{where}: {path}: not a list of names in utf-8") from error
    if len(set(names)) != count or len(names) != count:
        raise BadInput(f"{where}: {path}: {len(set(names))} different names in {len(names)} lines, not {count}")
    return names
