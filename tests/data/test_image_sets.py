"""What each image set holds once loaded, against what is known of it from elsewhere."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from dbbench.data import ImageSet, load_images, split_validation
from dbbench.data.fashion_mnist import DEBIAN_FOLDER
from dbbench.data.image_set import content_sha256


@pytest.fixture(scope="module")
def fashion_slice() -> ImageSet:
    return load_images("fashion_mnist_10k")


def test_the_embedded_slice_has_1000_and_200_images_of_each_class(fashion_slice: ImageSet) -> None:
    assert fashion_slice.train_images.shape == (10_000, 28, 28, 1)
    assert fashion_slice.test_images.shape == (2_000, 28, 28, 1)
    assert fashion_slice.train_images.dtype == np.uint8
    assert fashion_slice.train_labels.dtype == np.int64
    assert Counter(fashion_slice.train_labels.tolist()) == dict.fromkeys(range(10), 1_000)
    assert Counter(fashion_slice.test_labels.tolist()) == dict.fromkeys(range(10), 200)
    assert "Zalando" in fashion_slice.licence


def test_the_notice_ships_beside_the_slice() -> None:
    """The MIT licence asks for its notice with every copy."""
    import dbbench.data.embedded as embedded

    notice = (Path(str(embedded.SLICE_FILE)).with_suffix(".LICENSE.txt")).read_text()
    assert "Copyright (c) 2017 Zalando SE" in notice
    assert "Permission is hereby granted" in notice


@pytest.mark.filterwarnings("ignore:lbfgs failed to converge")
def test_logistic_regression_on_the_slice_scores_what_it_is_known_to(fashion_slice: ImageSet) -> None:
    """Images and labels would not belong together if this failed: .845 is known of this slice, .10 is chance."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    train, test = (
        images.reshape(len(images), -1) / np.float32(255)
        for images in (fashion_slice.train_images, fashion_slice.test_images)
    )
    # Stopped early on purpose: the score no longer moves.
    model = linear_model.LogisticRegression(max_iter=60, C=0.1).fit(train, fashion_slice.train_labels)
    assert model.score(test, fashion_slice.test_labels) == pytest.approx(0.845, abs=0.01)


def test_digits_are_the_librarys_images_divided_into_two_parts() -> None:
    """An image lost, doubled or shared by both parts would break every accuracy on this set."""
    datasets = pytest.importorskip("sklearn.datasets")
    digits = load_images("digits")
    bunch = datasets.load_digits()
    back = np.concatenate([digits.train_images, digits.test_images])[..., 0] / 255 * 16
    labels = np.concatenate([digits.train_labels, digits.test_labels])
    found = Counter((image.tobytes(), int(label)) for image, label in zip(np.rint(back), labels, strict=True))
    assert found == Counter((i.tobytes(), int(t)) for i, t in zip(bunch.images, bunch.target, strict=True))
    assert digits.train_images.max() == 255
    assert len(digits.test_labels) == 359
    share = np.bincount(digits.test_labels) / np.bincount(bunch.target)
    assert np.abs(share - 0.2).max() < 0.006


def test_idx_files_are_read_in_order(idx_folder: Path) -> None:
    loaded = load_images("fashion_mnist", folder=str(idx_folder))
    for images, labels, count in (
        (loaded.train_images, loaded.train_labels, 60_000),
        (loaded.test_images, loaded.test_labels, 10_000),
    ):
        assert images.shape == (count, 28, 28, 1)
        numbers = images[:, 0, :4, 0].astype(np.int64) @ np.array([1 << 24, 1 << 16, 1 << 8, 1])
        np.testing.assert_array_equal(numbers, np.arange(count))
        np.testing.assert_array_equal(labels, np.arange(count) * 7 % 10)
        assert images.flags.c_contiguous
        assert images.flags.writeable


def test_debians_folder_is_found_without_being_named(idx_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dbbench.data.fashion_mnist.DEBIAN_FOLDER", idx_folder)
    assert len(load_images("fashion_mnist").train_labels) == 60_000


@pytest.mark.skipif(not DEBIAN_FOLDER.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_the_slice_is_the_first_of_each_class_of_the_whole(fashion_slice: ImageSet) -> None:
    """The embedded file must be what its notice says it is."""
    whole = load_images("fashion_mnist")
    for images, labels, slice_images, count in (
        (whole.train_images, whole.train_labels, fashion_slice.train_images, 1_000),
        (whole.test_images, whole.test_labels, fashion_slice.test_images, 200),
    ):
        first = np.sort(np.concatenate([np.flatnonzero(labels == c)[:count] for c in range(10)]))
        np.testing.assert_array_equal(images[first], slice_images)


def _numbers_in(images: np.ndarray) -> np.ndarray:
    return images[:, 2, 5].astype(np.int64) @ np.array([1, 1 << 8, 1 << 16])


def test_cifar10_records_become_images_with_channels_last(cifar10_folder: Path) -> None:
    """Found in the archive's own sub-folder; colour planes mixed up or rows turned would show here."""
    loaded = load_images("cifar10", folder=str(cifar10_folder.parent))
    assert loaded.train_images.shape == (50_000, 32, 32, 3)
    np.testing.assert_array_equal(_numbers_in(loaded.train_images), np.arange(50_000))
    np.testing.assert_array_equal(_numbers_in(loaded.test_images), np.arange(10_000))
    np.testing.assert_array_equal(loaded.train_labels, np.arange(50_000) % 10_000 * 7 % 10)
    assert loaded.classes == tuple(f"name{i}" for i in range(10))


@pytest.mark.parametrize(("labels", "classes"), [("fine", 100), ("coarse", 20)])
def test_cifar100_takes_the_asked_label_byte(cifar100_folder: Path, labels: str, classes: int) -> None:
    loaded = load_images("cifar100", folder=str(cifar100_folder), labels=labels)
    np.testing.assert_array_equal(loaded.train_labels, np.arange(50_000) * 7 % classes)
    np.testing.assert_array_equal(_numbers_in(loaded.train_images), np.arange(50_000))
    assert len(loaded.classes) == classes


def test_content_sha256_is_over_type_shape_and_bytes() -> None:
    """The published recipe, computed by hand; a change of it would orphan every stored record."""
    images = np.arange(6, dtype=np.uint8).reshape(2, 3)
    labels = np.array([1, 2])
    expected = hashlib.sha256(
        b"uint8 (2, 3)\n" + bytes(range(6)) + b"int64 (2,)\n" + b"\1" + b"\0" * 7 + b"\2" + b"\0" * 7
    )
    assert content_sha256(images, labels) == expected.hexdigest()
    assert content_sha256(np.asfortranarray(images), labels.astype(">i8")) == expected.hexdigest()
    assert content_sha256(images.reshape(3, 2), labels) != expected.hexdigest()


def test_the_sha256_of_a_set_follows_its_content(fashion_slice: ImageSet) -> None:
    arrays = [fashion_slice.train_images, fashion_slice.train_labels,
              fashion_slice.test_images, fashion_slice.test_labels]  # fmt: skip
    assert fashion_slice.sha256 == content_sha256(*arrays) == load_images("fashion_mnist_10k").sha256
    arrays[3] = arrays[3][::-1]
    assert content_sha256(*arrays) != fashion_slice.sha256


def test_importing_the_room_stays_light() -> None:
    """The parent process, and ``--help``, must not pay for torch or an optional library."""
    code = "import sys, dbbench.data; print(sorted({'torch', 'sklearn', 'datasets', 'PIL'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_validation_split_never_meets_the_test_part(fashion_slice: ImageSet) -> None:
    """Its indices address the training arrays only, and the two parts share no storage."""
    train, validation = split_validation(fashion_slice.train_labels, 0.1, seed=0)
    assert np.array_equal(np.sort(np.concatenate([train, validation])), np.arange(10_000))
    held_out = {image.tobytes() for image in fashion_slice.train_images[validation]}
    test_only = {i.tobytes() for i in fashion_slice.test_images} - {i.tobytes() for i in fashion_slice.train_images}
    assert len(test_only) > 1_900
    assert not held_out & test_only
    assert not np.shares_memory(fashion_slice.train_images, fashion_slice.test_images)
