"""Files that are damaged, missing or not what their name says: each gives one line that names the file."""

from __future__ import annotations

import gzip
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dbbench.data import load_images
from dbbench.data.image_set import About, make_image_set
from dbbench.errors import BadInput

WithFile = Callable[[Path, str, bytes | None], Path]
WHERE = "suites/mine.yaml: task"


def complaint(name: str, folder: Path | None = None, **options: object) -> str:
    """Return the line that loading gives, having checked that it is one line and says where."""
    with pytest.raises(BadInput) as caught:
        load_images(name, folder=None if folder is None else str(folder), where=WHERE, **options)
    line = str(caught.value)
    assert line.startswith(f"{WHERE}: ")
    assert "\n" not in line
    return line


def _idx(magic: int, *numbers: int, body: bytes = b"") -> bytes:
    return gzip.compress(struct.pack(f">{len(numbers) + 1}I", magic, *numbers) + body, 1)


LABELS = "train-labels-idx1-ubyte.gz"
IMAGES = "train-images-idx3-ubyte.gz"
GOOD_LABELS = bytes(range(10)) * 6_000
BAD_IDX = {
    "missing": (LABELS, None, "No such file"),
    "empty": (LABELS, b"", "begins with"),
    "not gzip": (LABELS, b"<html>404</html>" * 9, "not a whole gzip file"),
    "truncated gzip": (LABELS, _idx(0x801, 60_000, body=GOOD_LABELS)[:-20], "not a whole gzip file"),
    "damaged gzip": (IMAGES, gzip.compress(b"\0\0\x08\x03" * 99)[:-8] + b"\0" * 8, "not a whole gzip file"),
    "damaged deflate": (LABELS, gzip.compress(b"")[:10] + b"\xff" * 40, "not a whole gzip file"),
    "wrong magic": (LABELS, _idx(0x803, 60_000, body=GOOD_LABELS), "begins with 00000803, not with idx magic 00000801"),
    "test labels instead": (LABELS, _idx(0x801, 10_000, body=GOOD_LABELS[:10_000]), "shape (60000,)"),
    "other image size": (IMAGES, _idx(0x803, 60_000, 32, 32), "shape (60000, 28, 28)"),
    "short": (LABELS, _idx(0x801, 60_000, body=GOOD_LABELS[:-1]), "60007 bytes, fewer than"),
    "long": (LABELS, _idx(0x801, 60_000, body=GOOD_LABELS + b"\0"), "more than the 60008 bytes"),
    "label out of range": (LABELS, _idx(0x801, 60_000, body=GOOD_LABELS[:-1] + b"\x0a"), "label 10 of image 59999"),
    "a folder": (LABELS, "folder", "Is a directory"),
}


@pytest.mark.parametrize("case", BAD_IDX)
def test_bad_idx_file(case: str, idx_folder: Path, with_file: WithFile) -> None:
    name, content, expected = BAD_IDX[case]
    folder = with_file(idx_folder, name, None if content == "folder" else content)
    if content == "folder":
        (folder / name).mkdir()
    line = complaint("fashion_mnist", folder)
    assert str(folder / name) in line
    assert expected in line


def test_a_missing_class_is_named(idx_folder: Path, with_file: WithFile) -> None:
    folder = with_file(idx_folder, LABELS, _idx(0x801, 60_000, body=(bytes(range(9)) + b"\0") * 6_000))
    assert "no image of class 9 (Ankle boot)" in complaint("fashion_mnist", folder)


def test_without_a_folder_the_debian_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dbbench.data.fashion_mnist.DEBIAN_FOLDER", tmp_path / "absent")
    assert "apt install dataset-fashion-mnist" in complaint("fashion_mnist")


BAD_CIFAR10 = {
    "missing": ("data_batch_1.bin", None, "No such file"),
    "truncated": ("data_batch_1.bin", b"\0" * 1_000, "1000 bytes, not 30730000"),
    "a record short": ("data_batch_1.bin", b"\0" * (9_999 * 3_073), "not 30730000"),
    "label": ("data_batch_1.bin", b"\0" * 3_073 + b"\x0b" + b"\0" * (9_999 * 3_073 - 1), "record 1 has label 11"),
    "names": ("batches.meta.txt", b"cat\ndog\n", "2 different names in 2 lines, not 10"),
    "names not text": ("batches.meta.txt", b"\xff\xfe\x00", "utf-8"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_CIFAR10)
def test_bad_cifar10_file(case: str, cifar10_folder: Path, with_file: WithFile) -> None:
    name, content, expected = BAD_CIFAR10[case]
    folder = with_file(cifar10_folder, name, content)
    line = complaint("cifar10", folder)
    assert str(folder / name) in line
    assert expected in line


def test_bad_fine_label_is_found_when_coarse_ones_are_asked_for(cifar100_folder: Path, with_file: WithFile) -> None:
    content = bytearray((cifar100_folder / "train.bin").read_bytes())
    content[5 * 3_074 + 1] = 100
    folder = with_file(cifar100_folder, "train.bin", bytes(content))
    assert "record 5 has label 100, not 0..99" in complaint("cifar100", folder, labels="coarse")


def test_the_pickled_version_is_recognised_and_not_opened(tmp_path: Path) -> None:
    (tmp_path / "batches.meta").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    assert "pickled Python version" in complaint("cifar10", tmp_path)


def test_cifar_needs_a_folder_that_exists(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "needs 'folder'" in complaint("cifar10")
    assert "there is no such folder" in complaint("cifar100", tmp_path / "absent")
    assert "is a file, not a folder" in complaint("cifar100", tmp_path / "file")


@pytest.mark.parametrize("damage", ["one byte", "truncated", "other keys", "missing"])
def test_a_damaged_slice_is_refused(damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package file changed by one byte must not pass for the published data."""
    import dbbench.data.embedded as embedded

    content = bytearray(Path(str(embedded.SLICE_FILE)).read_bytes())
    copy = tmp_path / "fashion_mnist_10k_2k.npz"
    if damage == "other keys":
        np.savez(copy, images=np.zeros(3))
    elif damage != "missing":
        content[len(content) // 2] ^= 1
        copy.write_bytes(content if damage == "one byte" else content[:-5])
    monkeypatch.setattr(embedded, "SLICE_FILE", copy)
    line = complaint("fashion_mnist_10k")
    assert str(copy) in line
    assert ("No such file" if damage == "missing" else "damaged (sha256") in line


def test_names_and_options_are_checked_with_the_nearest_valid_one(tmp_path: Path) -> None:
    assert "did you mean 'cifar100'?" in complaint("cifar1000")
    assert "did you mean 'labels'?" in complaint("cifar100", tmp_path, label="fine")
    assert "did you mean 'coarse'?" in complaint("cifar100", tmp_path, labels="corse")
    assert "takes no folder" in complaint("digits", tmp_path)
    assert "labels: 3 is not a text" in complaint("cifar100", tmp_path, labels=3)


@pytest.mark.parametrize(("name", "module", "remedy"), [
    ("digits", "sklearn.datasets", "pip install scikit-learn, or 'dbbench[test]'"),
    ("image_dataset", "datasets", "pip install datasets, or 'dbbench[data]'"),
])  # fmt: skip
def test_a_missing_library_is_named(
    name: str, module: str, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    assert remedy in complaint(name, None if name == "digits" else tmp_path)


IMAGES_OK = np.arange(4 * 2 * 2, dtype=np.uint8).reshape(4, 2, 2, 1)
LABELS_OK = np.array([0, 1, 0, 1])
BAD_PARTS = {
    "float images": (IMAGES_OK / 255.0, LABELS_OK, "images are float64"),
    "no channel axis": (IMAGES_OK[..., 0], LABELS_OK, "(4, 2, 2)"),
    "two channels": (IMAGES_OK.repeat(2, axis=3), LABELS_OK, "(4, 2, 2, 2)"),
    "no images": (IMAGES_OK[:0], LABELS_OK[:0], "(0, 2, 2, 1)"),
    "float labels": (IMAGES_OK, LABELS_OK / 1.0, "labels are float64"),
    "a label short": (IMAGES_OK, LABELS_OK[:3], "4 images but 3 labels"),
    "negative label": (IMAGES_OK, LABELS_OK - 1, "labels run from -1 to 0"),
    "label too large": (IMAGES_OK, LABELS_OK + 1, "labels run from 1 to 2"),
    "absent class": (IMAGES_OK, LABELS_OK * 0, "no image of class 1 (b)"),
    "blank": (IMAGES_OK * 0, LABELS_OK, "every pixel is 0"),
    "other size": (IMAGES_OK.reshape(4, 4, 1, 1), LABELS_OK, "test images (4, 1, 1)"),
}


@pytest.mark.parametrize("case", BAD_PARTS)
def test_a_part_that_is_not_what_it_should_be(case: str) -> None:
    """These checks stand behind every loader, a stranger's folder included."""
    images, labels, expected = BAD_PARTS[case]
    about = About("toy", "toy.bin", "made up", "none")
    with pytest.raises(BadInput) as caught:
        make_image_set(about, (IMAGES_OK, LABELS_OK), (images, labels), ("a", "b"), WHERE)
    assert str(caught.value).startswith(f"{WHERE}: toy.bin: ")
    assert expected in str(caught.value)
