"""A run's folder on disk: atomic writes, and reads that survive what a crash or a hand left behind.

    RunFolder("runs/vision").read_records()

Nothing is pickled. Whatever cannot be read back becomes a one-line problem that the report prints; it never becomes
a missing row that nobody mentions.
"""

from __future__ import annotations

import bisect
import gc
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ValidationError

from dbbench.errors import BadInput
from dbbench.files import read, write_atomically
from dbbench.plain import cell
from dbbench.results.frames import metrics_frame, results_frame, suite_order
from dbbench.results.holdings import LATER_COLUMNS, with_makers
from dbbench.results.parts import EVERYTHING_ELSE, PARTS, part_of_each, tells_logits
from dbbench.results.record import Held, Record, Samples, Timing
from dbbench.results.roles import ROLES
from dbbench.results.sound import record_problem, roles_against_peak, timing_problem, version_problem

RECORD_LIMIT_BYTES = 20 * 1024
#: Roles whose holders a report lists one by one.
ITEMISED = ("retained", "other")
#: What a record says when its smaller holders were summed; the second is of before they were told apart by part.
SUMMED_BY_PART = "the smaller holders are summed by role and part of the network, to keep the record below 20 KiB"
SUMMED_BY_ROLE = "the smaller holders are summed by role, to keep the record below 20 KiB"
CUT_MARK = " … [cut to keep the record below 20 KiB]"

_WORD = pa.dictionary(pa.int32(), pa.string())
TRACE_SCHEMA = pa.schema(
    [
        ("step", pa.int32()),
        ("block", pa.int32()),
        ("phase", _WORD),
        ("role", _WORD),
        ("module", _WORD),
        ("op", _WORD),
        ("storage", pa.int64()),
        ("bytes", pa.int64()),
        ("made_by", _WORD),
        ("holder", _WORD),
    ]
)
CURVES_SCHEMA = pa.schema(
    [
        ("step", pa.int64()),
        ("samples", pa.int64()),
        ("layer_updates", pa.int64()),
        ("budget_fraction", pa.float64()),
        ("split", pa.string()),
        ("name", pa.string()),
        ("value", pa.float64()),
    ]
)

Model = TypeVar("Model", bound=BaseModel)


class RunFolder:
    """The folder that one run writes and a report is rebuilt from. Opening it creates nothing."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    def write_record(self, record: Record) -> Record:
        """Write ``records/<hash>.json`` and return the record as written, trimmed to 20 KiB if it was larger.

        Raises ValueError when the roles do not sum to the peak, or when no trimming brings it below the limit.
        """
        mismatch = roles_against_peak(record)
        if mismatch:
            raise ValueError(f"record {record.row.config_hash}: {mismatch}")
        record, body = _fitted(record)
        write_atomically(self.path / "records" / f"{record.row.config_hash}.json", body)
        return record

    def read_records(self) -> tuple[list[Record], list[str]]:
        """Return the intact records, ordered by hash, and one line for each file that is not one."""
        return self._read_models("records", Record, record_problem)

    def write_timing(self, timing: Timing) -> None:
        """Write ``timing/<hash>.json``."""
        write_atomically(self.path / "timing" / f"{timing.config_hash}.json", to_json(timing))

    def read_timings(self) -> tuple[list[Timing], list[str]]:
        """Return the intact timings, ordered by hash, and one line for each file that is not one."""
        return self._read_models("timing", Timing, timing_problem)

    def write_trace(self, config_hash: str, frame: pd.DataFrame) -> None:
        """Write ``traces/<hash>.parquet``: the classified memory events of the traced steps, in time order.

        Columns as `TRACE_SCHEMA`. A step opens with rows of phase ``resident`` for what was live already; then
        ``bytes`` is positive for an allocation, negative for a free.
        """
        write_trace(self._trace_path(config_hash), frame)

    def read_trace(self, config_hash: str) -> pd.DataFrame | None:
        """Return the trace of a cell, None where it left none. Raises BadInput when the file is torn."""
        return read_trace(self._trace_path(config_hash))

    def write_curves(self, config_hash: str, frame: pd.DataFrame) -> None:
        """Write ``curves/<hash>.parquet``: losses and metrics over the budget, columns as `CURVES_SCHEMA`."""
        write_atomically(self._curves_path(config_hash), to_parquet(frame, CURVES_SCHEMA))

    def read_curves(self, config_hash: str) -> pd.DataFrame | None:
        """Return the curves of a cell, None where it left none. Raises BadInput when the file is torn."""
        return from_parquet(self._curves_path(config_hash), CURVES_SCHEMA)

    def with_curves(self) -> set[str]:
        """Return the hashes of the cells that left curves, readable or not."""
        return {name.removesuffix(".parquet") for name in _listed(self.path / "curves", ".parquet")}

    def write_samples(self, samples: Samples) -> None:
        """Write ``samples/<hash>.json``: what the cell's trained method made."""
        write_atomically(self._samples_path(samples.config_hash), to_json(samples))

    def read_samples(self, config_hash: str) -> Samples | None:
        """Return what a cell's method made, None where it left nothing. Raises BadInput when the file is damaged."""
        path = self._samples_path(config_hash)
        if not os.path.lexists(path):
            return None
        try:
            return Samples.model_validate_json(read(path))
        except (ValueError, OSError) as error:  # pydantic's own is a ValueError
            raise BadInput(f"{path}: truncated or not samples ({' '.join(str(error).split())[:200]})") from error

    def write_run(self, info: dict[str, Any]) -> None:
        """Write ``run.json``; its key ``variants`` lists the labels in the order of the suite."""
        write_atomically(self.path / "run.json", json.dumps(info, indent=2, allow_nan=False).encode() + b"\n")

    def read_run(self) -> dict[str, Any]:
        """Return what `write_run` wrote, {} where there is none. Raises BadInput when it is torn or edited."""
        path = self.path / "run.json"
        if not os.path.lexists(path):
            return {}
        try:
            info = json.loads(read(path))
        except (ValueError, RecursionError, OSError) as error:
            raise BadInput(f"{path}: truncated or not JSON ({error})") from error
        if not isinstance(info, dict):
            raise BadInput(f"{path}: holds no object")
        for key, kind, what in (("variants", str, "names"), ("cells", dict, "objects")):
            listed = info.get(key, [])
            if not isinstance(listed, list) or not all(isinstance(element, kind) for element in listed):
                raise BadInput(f"{path}: {key}: is no list of {what}; edited by hand?")
        return info

    def variants(self) -> list[str]:
        """Return the labels in the order of the suite, [] where ``run.json`` is missing, torn or lists none."""
        try:
            return suite_order(self.read_run())
        except BadInput:
            return []

    def finished(self) -> set[str]:
        """Return the hashes of the intact records whose status is ``ok``: what a rerun may skip."""
        return {record.row.config_hash for record in self.read_records()[0] if record.row.status == "ok"}

    def write_tables(self) -> None:
        """Write ``results.parquet``, ``results.csv`` and ``metrics.parquet`` from the records and the timings."""
        records, timings = self.read_records()[0], self.read_timings()[0]
        variants = self.variants()
        self.write_frames(results_frame(records, timings, variants), metrics_frame(records, variants))

    def write_frames(self, results: pd.DataFrame, metrics: pd.DataFrame) -> None:
        """Write ``results.parquet``, ``results.csv`` and ``metrics.parquet`` from their frames."""
        write_atomically(self.path / "results.parquet", to_parquet(results))
        write_atomically(self.path / "metrics.parquet", to_parquet(metrics))
        write_atomically(self.path / "results.csv", to_csv(results))

    def _trace_path(self, config_hash: str) -> Path:
        return self.path / "traces" / f"{config_hash}.parquet"

    def _curves_path(self, config_hash: str) -> Path:
        return self.path / "curves" / f"{config_hash}.parquet"

    def _samples_path(self, config_hash: str) -> Path:
        return self.path / "samples" / f"{config_hash}.json"

    def _read_models(
        self, room: str, model: type[Model], check: Callable[[Model, str], str]
    ) -> tuple[list[Model], list[str]]:
        found: list[Model] = []
        problems: list[str] = []
        with _no_collection():
            for name in _listed(self.path / room, ".json"):
                value, problem = _read_model(self.path / room / name, model)
                problem = problem or (check(value, name.removesuffix(".json")) if value is not None else "")
                if problem:
                    problems.append(" ".join(f"{room}/{name}: {problem}".split()))
                elif value is not None:
                    found.append(value)
        return found, problems


def _listed(folder: Path, suffix: str) -> list[str]:
    """Return the names of the files in a folder that end so, sorted; [] where there is no folder."""
    try:
        return sorted(entry.name for entry in os.scandir(folder) if entry.name.endswith(suffix))
    except (FileNotFoundError, NotADirectoryError):
        return []


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep the cyclic collector from looking through thousands of records again and again: they have no cycles."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _read_model(path: Path, model: type[Model]) -> tuple[Model | None, str]:
    """Return what the file holds, or None and what is wrong with it."""
    try:
        body = read(path)
        try:
            return model.model_validate_json(body), ""
        except ValidationError:
            raw = json.loads(body)  # what is not JSON, or of another version, is said before what does not fit
        return (None, problem) if (problem := version_problem(raw)) else (model.model_validate(raw), "")
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        return None, f"does not fit the schema at '{place}': {first['msg']}; edited by hand?"
    except (ValueError, RecursionError, OSError) as error:
        return None, f"truncated or not JSON ({error})"


def to_json(model: BaseModel) -> bytes:
    """Return ``model`` as JSON: a line a key, and a line an element of a list.

    Full indentation would spend half of 20 KiB on spaces.
    """
    lines = []
    for key, value in model.model_dump(mode="json").items():
        body = json.dumps(value, ensure_ascii=False)
        if isinstance(value, list) and value:
            body = "[\n  " + ",\n  ".join(json.dumps(element, ensure_ascii=False) for element in value) + "\n ]"
        lines.append(f' "{key}": {body}')
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode(errors="replace")


def _fitted(record: Record) -> tuple[Record, bytes]:
    """Trim ``record`` until its JSON fits: first the holders, largest kept, then a runaway error text."""
    body = to_json(record)
    if len(body) <= RECORD_LIMIT_BYTES:
        return record, body
    every = record
    record = _most(len(every.held_at_peak), lambda keep: _with_largest_holders(every, keep, by_part=True))
    if len(to_json(record)) > RECORD_LIMIT_BYTES:
        record = _most(len(every.held_at_peak), lambda keep: _with_largest_holders(every, keep, by_part=False))
    if len(to_json(record)) > RECORD_LIMIT_BYTES and record.row.error:
        whole = record
        record = _most(len(whole.row.error or ""), lambda keep: _with_shorter_error(whole, keep))
    body = to_json(record)
    if len(body) > RECORD_LIMIT_BYTES:
        raise ValueError(f"record {record.row.config_hash} is {len(body)} bytes after trimming, over 20 KiB")
    return record, body


def _most(count: int, trimmed: Callable[[int], Record]) -> Record:
    """Return ``trimmed(k)`` for the largest k up to ``count`` that fits, ``trimmed(0)`` where none does."""

    def too_large(keep: int) -> bool:
        return len(to_json(trimmed(keep))) > RECORD_LIMIT_BYTES

    return trimmed(max(0, bisect.bisect_left(range(count + 1), True, key=too_large) - 1))


def _with_shorter_error(record: Record, keep: int) -> Record:
    error = record.row.error or ""
    return record.model_copy(update={"row": record.row.model_copy(update={"error": error[:keep] + CUT_MARK})})


def _with_largest_holders(record: Record, keep: int, by_part: bool) -> Record:
    """Copy ``record`` with its ``keep`` first holders and a line per role, and part, for the rest; bytes sum as before.

    First come those that tell what logits are, for others are known by them, and those of the roles that a report
    itemises; then the largest.
    """
    copy = record.model_copy(deep=True)

    def place(h: Held) -> tuple[Any, ...]:
        return not tells_logits(h), h.role not in ITEMISED, -h.bytes, h.role, h.module, h.op, h.holder or ""

    lines = sorted(record.held_at_peak, key=place)
    if keep >= len(lines):
        return copy
    parts = part_of_each(lines, record.row.peak_phase) if by_part else ["rest"] * len(lines)
    rest: dict[tuple[str, str], list[Held]] = {}
    for line, part in zip(lines[keep:], parts[keep:], strict=True):
        rest.setdefault((line.role, part), []).append(line)
    folded = []
    for (role, part), same in sorted(rest.items(), key=lambda item: (_role_rank(item[0][0]), PARTS.index(item[0][1]))):
        size, storages = sum(line.bytes for line in same), sum(line.storages for line in same)
        module = EVERYTHING_ELSE if part == "rest" else f"{part}.{EVERYTHING_ELSE}"
        folded.append(Held(role=role, module=module, op="", bytes=size, storages=storages))
    copy.held_at_peak = lines[:keep] + folded
    copy.unavailable["held_at_peak"] = SUMMED_BY_PART if by_part else SUMMED_BY_ROLE
    return copy


def _role_rank(role: str) -> tuple[int, str]:
    return (ROLES.index(role) if role in ROLES else len(ROLES), role)


def write_trace(path: Path, frame: pd.DataFrame) -> None:
    """Write classified memory events to ``path``, columns as `TRACE_SCHEMA`."""
    write_atomically(path, to_parquet(with_makers(frame), TRACE_SCHEMA))


def read_trace(path: Path) -> pd.DataFrame | None:
    """Return what `write_trace` wrote, None where there is none; a trace of before ``made_by`` and ``holder`` gets them
    from `with_makers`. Raises BadInput when the file is torn."""
    frame = from_parquet(path, TRACE_SCHEMA, optional=LATER_COLUMNS)
    return None if frame is None else with_makers(frame)


def to_csv(frame: pd.DataFrame) -> bytes:
    """Return ``frame`` as CSV: no control characters, and no text that a spreadsheet takes for a formula."""
    texts = [name for name in frame.columns if frame[name].dtype == object or pd.api.types.is_string_dtype(frame[name])]
    plain = frame.assign(
        **{name: [cell(value) if isinstance(value, str) else value for value in frame[name]] for name in texts}
    )
    return plain.to_csv(index=False, lineterminator="\n").encode(errors="replace")


def to_parquet(frame: pd.DataFrame, schema: pa.Schema | None = None) -> bytes:
    """Return ``frame`` as the bytes of a parquet file, with the columns of ``schema`` where one is given."""
    table = pa.Table.from_pandas(frame, schema=schema, preserve_index=False)
    buffer = io.BytesIO()
    # without pandas' own metadata the bytes depend on the data alone, not on the versions that wrote it
    pq.write_table(table.replace_schema_metadata(None), buffer, compression="zstd")
    return buffer.getvalue()


def from_parquet(path: Path, schema: pa.Schema, optional: Sequence[str] = ()) -> pd.DataFrame | None:
    """Return the columns of ``schema`` from the file at ``path``, None where there is no file.

    Raises BadInput, one line, when it is torn, lacks a column that is not ``optional``, or holds something else there:
    another type, or in a column of whole numbers nothing.
    """
    where = f"{path.parent.name}/{path.name}"
    if not os.path.lexists(path):
        return None
    try:
        table = pq.ParquetFile(pa.BufferReader(read(path))).read()
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"{where}: torn or no parquet ({error})") from error
    missing = [name for name in schema.names if name not in table.column_names]
    needed = [name for name in missing if name not in optional]
    if needed:
        raise BadInput(f"{where}: lacks the column '{needed[0]}'")
    columns = {}
    for kind in (schema.field(name) for name in schema.names if name not in missing):
        try:
            columns[kind.name] = table.column(kind.name).cast(kind.type)
        except (pa.ArrowException, ValueError) as error:
            raise BadInput(f"{where}: the column '{kind.name}' is no {kind.type} ({error})") from error
        if pa.types.is_integer(kind.type) and columns[kind.name].null_count:
            raise BadInput(f"{where}: the column '{kind.name}' has a row without a value")
    return pa.table(columns).to_pandas()
