"""Text from a local folder: plain files, or a corpus that HuggingFace's `datasets` reads. Nothing is downloaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from dbbench.data.reading import find_folder, import_optional, read_bytes
from dbbench.data.text_set import TextSet, cut, make_text_set, text_set
from dbbench.errors import BadInput, did_you_mean

_SAVED = ("dataset_dict.json", "state.json")


def load_text_folder(
    *,
    where: str,
    folder: str | None = None,
    test_fraction: float = 0.1,
    validation_fraction: float = 0.05,
) -> TextSet:
    """Return the ``.txt`` files of ``folder`` (UTF-8, sorted by name, sub-folders too), a document each.

    The tail of each document is held out, as of the embedded plays. Raises BadInput for a folder without any, and a
    file that is no UTF-8.
    """
    if folder is None:
        raise BadInput(f"{where}: 'text_folder' needs 'folder': one with .txt files")
    path = find_folder(folder, where)
    files = sorted(path.rglob("*.txt"))
    if not files:
        raise BadInput(f"{where}: folder: {path} holds no .txt file")
    return make_text_set(
        "text_folder",
        [_decoded(file, where) for file in files],
        where,
        test_fraction=test_fraction,
        validation_fraction=validation_fraction,
        source=f"{len(files)} text files of the folder '{path.name}'",
        licence="none stated in the folder",
    )


def load_text_dataset(
    *,
    where: str,
    folder: str | None = None,
    column: str = "text",
    train_split: str = "train",
    test_split: str = "test",
    validation_fraction: float = 0.05,
) -> TextSet:
    """Return two splits of a corpus such as LM1B, OpenWebText or text8 that `datasets` reads from ``folder``.

    A row is a document. Where there is no split ``test_split`` of its own, name the same split twice: then the last
    tenth of its rows is held out. The tail of the training rows validates. Raises BadInput if the extra ``data`` is not
    installed, and for whatever is wrong in the folder.
    """
    if folder is None:
        raise BadInput(f"{where}: 'text_dataset' needs 'folder': one that the library 'datasets' can read")
    path = find_folder(folder, where)
    library = import_optional("datasets", "datasets", "data", where)
    splits = _open(library, path, where)
    for key, split in (("train_split", train_split), ("test_split", test_split)):
        if split not in splits:
            raise BadInput(f"{where}: {key}: {path} has no split '{split}'{did_you_mean(split, splits)}")
    rows = _rows(splits[train_split], column, f"{where}: {path}: split '{train_split}'")
    if test_split == train_split:
        held = round(len(rows) * 0.1)
        rows, test = rows[: len(rows) - held], rows[len(rows) - held :]
    else:
        test = _rows(splits[test_split], column, f"{where}: {path}: split '{test_split}'")
    train, validation = _validated(rows, validation_fraction)
    licence = splits[train_split].info.license or "none stated in the folder"
    source = f"local folder '{path.name}', read by datasets"
    return text_set("text_dataset", train, validation, test, where, source=source, licence=licence)


def _validated(rows: list[str], fraction: float) -> tuple[list[str], list[str]]:
    """Return the rows to train on and the last ones, which validate; of a single row the tail does."""
    if len(rows) == 1:
        train, validation, _ = cut(rows[0], 0.0, fraction)
        return [train], [validation]
    last = max(1, round(len(rows) * fraction))
    return rows[:-last], rows[-last:]


def _decoded(path: Path, where: str) -> str:
    try:
        return read_bytes(path, where).decode()
    except UnicodeDecodeError as error:
        raise BadInput(f"{where}: {path}: is no UTF-8 at byte {error.start}") from error


def _open(library: ModuleType, path: Path, where: str) -> Mapping[str, Any]:
    """Return the splits in ``path`` by name: of a folder saved to disk, or of parquet files named after them."""
    library.config.HF_DATASETS_OFFLINE = library.config.HF_HUB_OFFLINE = True
    library.disable_progress_bars()
    try:
        if any((path / name).exists() for name in _SAVED):
            found = library.load_from_disk(str(path))
            return found if isinstance(found, library.DatasetDict) else {"train": found}
        files: dict[str, list[str]] = {}
        for file in sorted(path.rglob("*.parquet")):
            files.setdefault(file.name.partition("-")[0].partition(".")[0], []).append(str(file))
        return {split: library.Dataset.from_parquet(names, keep_in_memory=True) for split, names in files.items()}
    except Exception as error:  # the library passes on the errors of many parsers and file systems
        raise BadInput(f"{where}: {path}: datasets cannot read it: {type(error).__name__}: {error}") from error


def _rows(table: Any, column: str, complaint: str) -> list[str]:
    if column not in table.features:
        raise BadInput(f"{complaint}: column: there is no '{column}'{did_you_mean(column, table.features)}")
    values: Iterable[Any] = table[column]
    rows = []
    for index, value in enumerate(values):
        if not isinstance(value, str):
            raise BadInput(f"{complaint}: column '{column}' holds no text in row {index}")
        rows.append(value)
    return rows
