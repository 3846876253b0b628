"""Any image classification set that HuggingFace's `datasets` reads from a local folder; the network is never used.

The folder is what ``save_to_disk`` wrote, or parquet files, or images in ``train/<class>/`` and ``test/<class>/``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from dbbench.data.image_set import About, ImageSet, Part, make_image_set
from dbbench.data.reading import find_folder, import_optional
from dbbench.errors import BadInput, did_you_mean

_EIGHT_BIT_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")


def load_image_dataset(
    *,
    where: str,
    folder: str | None = None,
    image_column: str = "image",
    label_column: str = "label",
    train_split: str = "train",
    test_split: str = "test",
) -> ImageSet:
    """Return the two named splits of the set in ``folder``; its images must have one size.

    Images that are grey in both splits have one channel, else all have three. Labels are a ``ClassLabel`` or integers
    0..K-1. Raises `BadInput` if the extra ``data`` is not installed, and for whatever is wrong in the folder.
    """
    if folder is None:
        raise BadInput(f"{where}: 'image_dataset' needs 'folder': one that the library 'datasets' can read")
    path = find_folder(folder, where)
    library = import_optional("datasets", "datasets", "data", where)
    columns = {"image_column": image_column, "label_column": label_column}
    # The library would otherwise keep a copy of the set in a cache under the user's home.
    with tempfile.TemporaryDirectory(prefix="dbbench_datasets_") as cache:
        splits = _open(library, path, cache, where)
        for key, split in (("train_split", train_split), ("test_split", test_split)):
            if split not in splits:
                raise BadInput(f"{where}: {key}: {path} has no split '{split}'{did_you_mean(split, splits)}")
            _check_columns(library, splits[split], columns, where, path)
        parts = [
            _read_split(splits[split], image_column, label_column, f"{where}: {path}: split '{split}'")
            for split in (train_split, test_split)
        ]
        label_feature = splits[train_split].features[label_column]
        licence = splits[train_split].info.license or "none stated in the folder"
    if all((images == images[..., :1]).all() for images, _ in parts):
        parts = [(images[..., :1], labels) for images, labels in parts]
    names = getattr(label_feature, "names", None) or [str(i) for i in range(int(parts[0][1].max()) + 1)]
    about = About("image_dataset", str(path), f"local folder '{path.name}', read by datasets", licence)
    return make_image_set(about, parts[0], parts[1], tuple(names), where)


def _check_columns(library: ModuleType, table: Any, columns: Mapping[str, str], where: str, path: Path) -> None:
    for key, column in columns.items():
        if column not in table.features:
            raise BadInput(f"{where}: {key}: {path} has no column '{column}'{did_you_mean(column, table.features)}")
    if not isinstance(table.features[columns["image_column"]], library.Image):
        raise BadInput(f"{where}: image_column: {path}: column '{columns['image_column']}' does not hold images")


def _open(library: ModuleType, path: Path, cache: str, where: str) -> Mapping[str, Any]:
    """Return the splits in ``path`` by name."""
    library.config.HF_DATASETS_OFFLINE = library.config.HF_HUB_OFFLINE = True
    library.disable_progress_bars()
    try:
        if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
            found = library.load_from_disk(str(path))
        else:
            reader = "parquet" if next(path.rglob("*.parquet"), None) else "imagefolder"
            found = library.load_dataset(reader, data_dir=str(path), cache_dir=cache)
    except Exception as error:  # The library passes on the errors of many parsers and file systems.
        raise BadInput(f"{where}: {path}: datasets cannot read it: {type(error).__name__}: {error}") from error
    if not isinstance(found, library.DatasetDict):
        raise BadInput(f"{where}: {path}: holds one nameless split; a training and a test split are needed")
    return found


def _read_split(table: Any, image_column: str, label_column: str, complaint: str) -> Part:
    """Decode a split to images, uint8 ``[N, H, W, 3]``, and integer labels ``[N]``."""
    labels = np.asarray(table[label_column][:])
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise BadInput(f"{complaint}: column '{label_column}' is empty or does not hold integers or a ClassLabel")
    images: list[np.ndarray] = []
    for index in range(len(table)):
        try:
            image = table[index][image_column]
            if image is None or image.mode not in _EIGHT_BIT_MODES:
                raise BadInput(f"{complaint}: image {index} is {image and image.mode}, not 8 bits a channel")
            images.append(np.asarray(image.convert("RGB")))
        except (OSError, ValueError, SyntaxError) as error:  # What Pillow raises depends on the format.
            raise BadInput(f"{complaint}: image {index} cannot be decoded: {error}") from error
        if images[-1].shape != images[0].shape:
            sizes = " and ".join("x".join(map(str, images[i].shape[:2])) for i in (0, -1))
            raise BadInput(f"{complaint}: images 0 and {index} are {sizes}; all must have one size")
    return np.stack(images), labels
