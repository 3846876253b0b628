"""A run's results in the tracker that people use: TensorBoard, Weights & Biases, MLflow, each behind an extra.

What is sent is read from the run's folder when it has ended: of every finished cell its configuration, its learning
curves, and the figures of its row. By default all of it stays in ``loggers/`` inside that folder and nothing goes over
the network; ``WANDB_MODE=online`` and ``MLFLOW_TRACKING_URI`` say otherwise, as these libraries have it. A cell is sent
once to each: ``loggers/NAME.sent`` lists those that were.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dbbench.errors import BadInput, did_you_mean
from dbbench.files import append, read
from dbbench.results.record import Record
from dbbench.results.store import RunFolder

#: By name: the module that must be there, and the extra that brings it.
PACKAGES = {"tensorboard": "tensorboard.summary", "wandb": "wandb", "mlflow": "mlflow"}
PROJECT = "dbbench"
_MOST_BYTES = 2**24
#: One point of a curve: (name, value, step).
Point = tuple[str, float, int]


@dataclass(frozen=True)
class Entry:
    """What is sent of a cell: ``curve`` in the order of its steps, ``figures`` of its row by column."""

    name: str
    group: str
    config: dict[str, Any]
    curve: list[Point]
    figures: dict[str, float]


def check_loggers(names: list[str]) -> None:
    """Raise BadInput for a name that is none, or whose package is not installed."""
    for name in names:
        if name not in PACKAGES:
            raise BadInput(f"--log {name}: there is no such tracker{did_you_mean(name, PACKAGES)}")
        try:
            importlib.import_module(PACKAGES[name])
        except ImportError as error:
            raise BadInput(f"--log {name}: needs a package ({error}): pip install 'dbbench[{name}]'") from error


def log_run(folder: Path, names: list[str]) -> list[str]:
    """Send the finished cells of the run in ``folder`` to each of ``names``; return a line on each."""
    run, told = RunFolder(folder), []
    records = [record for record in run.read_records()[0] if record.row.status == "ok"]
    for name in names:
        place = folder / "loggers" / name
        place.mkdir(parents=True, exist_ok=True)
        sent = _sent(folder, name)
        fresh = [record for record in records if record.row.config_hash not in sent]
        for record in fresh:
            _WRITERS[name](_entry(run, record), place)
            append(folder / "loggers" / f"{name}.sent", f"{record.row.config_hash}\n".encode())
        told.append(f"{name}: {len(fresh)} cells sent, {len(records) - len(fresh)} were there; {place}")
    return told


def _sent(folder: Path, name: str) -> set[str]:
    try:
        return set(read(folder / "loggers" / f"{name}.sent", _MOST_BYTES).decode().split())
    except FileNotFoundError:
        return set()


def _entry(run: RunFolder, record: Record) -> Entry:
    row = record.row
    curves = run.read_curves(row.config_hash)
    points = [] if curves is None else curves.sort_values(["step", "split", "name"], kind="stable").to_dict("records")
    columns = row.model_dump()
    figures = {
        name: float(value)
        for name, value in columns.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and name not in ("seed", "schema_version")
    }
    return Entry(
        f"{row.variant} depth {row.depth} seed {row.seed} {row.config_hash[:8]}",
        row.suite,
        dict(_flat(record.cell)),
        [(f"{point['split']}/{point['name']}", float(point["value"]), int(point["step"])) for point in points],
        figures,
    )


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _to_tensorboard(entry: Entry, place: Path) -> None:
    summary: Any = importlib.import_module("tensorboard.summary")
    writer = summary.Writer(str(place / entry.name.replace(" ", "_").replace("/", "_")))
    for name, value, step in entry.curve:
        writer.add_scalar(name, value, step)
    for name, value in entry.figures.items():
        writer.add_scalar(f"figures/{name}", value, 0)
    writer.close()


def _to_wandb(entry: Entry, place: Path) -> None:
    wandb: Any = importlib.import_module("wandb")
    mode = os.environ.get("WANDB_MODE", "offline")
    run = wandb.init(
        mode=mode, dir=str(place), project=os.environ.get("WANDB_PROJECT", PROJECT), name=entry.name,
        group=entry.group, config=entry.config, settings=wandb.Settings(silent=True),
    )  # fmt: skip
    for step in dict.fromkeys(step for _, _, step in entry.curve):
        run.log({name: value for name, value, at in entry.curve if at == step}, step=step)
    for name, value in entry.figures.items():
        run.summary[name] = value
    run.finish()


def _to_mlflow(entry: Entry, place: Path) -> None:
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # a folder needs no database, and is asked for here
    mlflow: Any = importlib.import_module("mlflow")
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        mlflow.set_tracking_uri(place.absolute().as_uri())
    mlflow.set_experiment(f"{PROJECT}-{entry.group}")
    with mlflow.start_run(run_name=entry.name):
        mlflow.log_params({key: str(value)[:500] for key, value in entry.config.items()})
        for name, value, step in entry.curve:
            mlflow.log_metric(name, value, step=step)
        mlflow.log_metrics(entry.figures)


_WRITERS: dict[str, Callable[[Entry, Path], None]] = {
    "tensorboard": _to_tensorboard,
    "wandb": _to_wandb,
    "mlflow": _to_mlflow,
}
