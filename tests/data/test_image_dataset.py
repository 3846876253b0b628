"""Sets that the library `datasets` reads from a local folder; these tests need the extra ``data``."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dbbench.data import load_images
from dbbench.errors import BadInput

datasets = pytest.importorskip("datasets")
Image = pytest.importorskip("PIL.Image")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be downloaded at run time: a connection is an error."""

    def refuse(*_: Any) -> None:
        raise AssertionError("a network connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def _arrays(count: int, channels: int = 3) -> np.ndarray:
    shape = (count, 6, 5) if channels == 1 else (count, 6, 5, channels)
    return np.random.default_rng(count).integers(0, 256, shape).astype(np.uint8)


def _split(arrays: np.ndarray, labels: list[Any], names: tuple[str, str] | None = ("cat", "dog")) -> Any:
    feature = datasets.ClassLabel(names=list(names)) if names else datasets.Value("int64")
    features = datasets.Features({"image": datasets.Image(), "label": feature})
    return datasets.Dataset.from_dict({"image": [Image.fromarray(a) for a in arrays], "label": labels}, features)


def _write(folder: Path, kind: str, train: np.ndarray, test: np.ndarray) -> None:
    parts = {"train": (train, [0, 1] * (len(train) // 2)), "test": (test, [1, 0] * (len(test) // 2))}
    if kind == "imagefolder":
        for split, (arrays, labels) in parts.items():
            for i, (array, label) in enumerate(zip(arrays, labels, strict=True)):
                path = folder / split / ("cat", "dog")[label] / f"{i:03}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(path)
        return
    splits = datasets.DatasetDict({split: _split(*part) for split, part in parts.items()})
    if kind == "save_to_disk":
        splits.save_to_disk(str(folder))
    else:
        (folder / "data").mkdir()
        for split, table in splits.items():
            table.to_parquet(str(folder / "data" / f"{split}-00000-of-00001.parquet"))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["save_to_disk", "parquet", "imagefolder"])
def test_pixels_and_labels_survive_each_kind_of_folder(kind: str, channels: int, tmp_path: Path) -> None:
    train, test = _arrays(8, channels), _arrays(4, channels)
    _write(tmp_path, kind, train, test)
    before = sorted(tmp_path.rglob("*"))
    loaded = load_images("image_dataset", folder=str(tmp_path))
    assert loaded.classes == ("cat", "dog")
    order = [*range(0, 8, 2), *range(1, 8, 2)] if kind == "imagefolder" else list(range(8))
    np.testing.assert_array_equal(loaded.train_images, train[order].reshape(8, 6, 5, channels))
    np.testing.assert_array_equal(loaded.train_labels, np.array([0, 1] * 4)[order])
    assert loaded.test_images.shape == (4, 6, 5, channels)
    assert str(tmp_path) not in loaded.source
    assert sorted(tmp_path.rglob("*")) == before


def _save(folder: Path, train: Any, test: Any) -> None:
    datasets.DatasetDict({"train": train, "test": test}).save_to_disk(str(folder))


def test_integer_labels_are_named_by_number(tmp_path: Path) -> None:
    _save(tmp_path, _split(_arrays(4), [0, 1, 2, 1], None), _split(_arrays(4), [2, 1, 0, 0], None))
    assert load_images("image_dataset", folder=str(tmp_path)).classes == ("0", "1", "2")


def _complaint(folder: Path, **options: str) -> str:
    with pytest.raises(BadInput) as caught:
        load_images("image_dataset", folder=str(folder), where="mine.yaml: task", **options)
    line = str(caught.value)
    assert line.startswith("mine.yaml: task: ")
    assert str(folder) in line
    assert "\n" not in line
    return line


def test_wrong_names_give_the_nearest_valid_one(tmp_path: Path) -> None:
    _write(tmp_path, "save_to_disk", _arrays(4), _arrays(4))
    assert "did you mean 'image'?" in _complaint(tmp_path, image_column="images")
    assert "did you mean 'label'?" in _complaint(tmp_path, label_column="labels")
    assert "did you mean 'test'?" in _complaint(tmp_path, test_split="tests")
    assert "does not hold images" in _complaint(tmp_path, image_column="label")
    assert "does not hold integers" in _complaint(tmp_path, label_column="image")


def test_sets_that_cannot_be_used(tmp_path: Path) -> None:
    """Each case is a folder that the library itself opens without complaint."""
    good = _split(_arrays(4), [0, 1, 0, 1])
    turned = _split(_arrays(2).transpose(0, 2, 1, 3), [0, 1])
    cases = {
        "sizes": (datasets.concatenate_datasets([good, turned]), "images 0 and 4 are 6x5 and 5x6"),
        "unlabelled": (_split(_arrays(4), [0, 1, -1, 1]), "labels run from -1 to 1"),
        "sixteen_bits": (_split(_arrays(4, 1).astype(np.uint16) * 9, [0, 1, 0, 1]), "not 8 bits a channel"),
        "one_class": (_split(_arrays(4), [0, 0, 0, 0]), "no image of class 1 (dog)"),
        "text": (good.cast_column("label", datasets.Value("string")), "does not hold integers"),
    }
    for name, (table, expected) in cases.items():
        _save(tmp_path / name, good, table)
        assert expected in _complaint(tmp_path / name)
    good.save_to_disk(str(tmp_path / "nameless"))
    assert "one nameless split" in _complaint(tmp_path / "nameless")


def test_damaged_folders(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "datasets cannot read it" in _complaint(tmp_path / "empty")
    _write(tmp_path / "broken", "imagefolder", _arrays(4), _arrays(4))
    victim = tmp_path / "broken" / "test" / "dog" / "000.png"
    victim.write_bytes(victim.read_bytes()[:40])
    assert "image 2 cannot be decoded" in _complaint(tmp_path / "broken")
    (tmp_path / "torn" / "data").mkdir(parents=True)
    (tmp_path / "torn" / "data" / "train.parquet").write_bytes(b"PAR1 and no more")
    assert "datasets cannot read it" in _complaint(tmp_path / "torn")
