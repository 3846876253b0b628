"""What one cell leaves behind: a typed row, its metrics, and what held the memory at the peak.

`Row` is the schema of ``results.parquet``: its fields, in order, are the columns. A figure that could not be had is
``None`` and its reason stands in ``Record.unavailable``; zero always means a measured zero.
"""

from __future__ import annotations

import types
import typing
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.dataclasses import dataclass

SCHEMA_VERSION = 1

Status = Literal["ok", "failed", "diverged", "out_of_memory", "timeout", "killed", "interrupted"]


class Row(BaseModel):
    """One row of ``results.parquet``; bytes, FLOPs and counts are integers, times are in seconds."""

    model_config = ConfigDict(extra="forbid")

    # which cell
    suite: str
    task: str
    network: str
    variant: str
    method: str
    options_json: str
    seed: int
    status: Status
    error: str | None = None
    config_hash: str
    # its resolved configuration
    network_size: str
    depth: int
    width: int | None = None
    batch_size: int
    sequence_length: int | None = None
    parameters_count: int | None = None
    blocks: int | None = None
    layers_per_block: str | None = None
    residency: str | None = None
    precision: str
    optimizer: str
    optimizer_implementation: str
    learning_rate: float
    budget: str
    budget_value: float
    threads: int
    # the peak of a traced step
    source: str | None = None
    device: str
    peak_bytes: int | None = None
    peak_phase: str | None = None
    peak_step: int | None = None
    peak_block: int | None = None
    parameters_bytes: int | None = None
    gradients_bytes: int | None = None
    optimizer_bytes: int | None = None
    activations_bytes: int | None = None
    weight_casts_bytes: int | None = None
    temporaries_bytes: int | None = None
    buffers_bytes: int | None = None
    inputs_bytes: int | None = None
    ema_bytes: int | None = None
    retained_bytes: int | None = None
    other_bytes: int | None = None
    unseen_bytes: int | None = None
    # the most each role reached on its own
    parameters_own_peak_bytes: int | None = None
    gradients_own_peak_bytes: int | None = None
    optimizer_own_peak_bytes: int | None = None
    activations_own_peak_bytes: int | None = None
    weight_casts_own_peak_bytes: int | None = None
    temporaries_own_peak_bytes: int | None = None
    buffers_own_peak_bytes: int | None = None
    inputs_own_peak_bytes: int | None = None
    ema_own_peak_bytes: int | None = None
    retained_own_peak_bytes: int | None = None
    other_own_peak_bytes: int | None = None
    unseen_own_peak_bytes: int | None = None
    shared_parameters_bytes: int | None = None
    host_transfer_bytes_per_step: int | None = None
    swap_share: float | None = None
    inference_peak_bytes: int | None = None
    # the device's own account of an untraced step
    device_peak_bytes: int | None = None
    kernel_workspace_bytes: int | None = None
    allocated_bytes: int | None = None
    reserved_bytes: int | None = None
    reserved_expandable_bytes: int | None = None  # simulated alone: a run has one configuration
    nvml_process_peak_bytes: int | None = None
    # arithmetic, a step (mean over blocks) and a whole training
    flops_forward: int | None = None
    flops_backward: int | None = None
    flops_recompute: int | None = None
    flops_step: int | None = None
    flops_train_total: int | None = None
    flops_inference: int | None = None
    attention_kernel: str | None = None
    uncounted_ops: str | None = None
    unmeasured_work: str | None = None
    # what it learnt and what that took
    metric: str | None = None
    metric_value: float | None = None
    samples: int | None = None
    layer_updates: int | None = None
    shared_updates: int | None = None
    train_seconds: float | None = None
    samples_per_second: float | None = None
    energy_joules: float | None = None
    # where it came from
    torch_version: str
    git_commit: str | None = None
    dataset_sha256: str | None = None
    schema_version: int = SCHEMA_VERSION
    dbbench_version: str


@dataclass(kw_only=True, slots=True)
class MetricValue:
    """One figure of merit on one split. ``variant`` tells apart ways of predicting, '' for the method's own.

    ``lowest`` and ``highest`` are the bounds of what it can be, None where there is none.
    """

    split: str
    step: int
    name: str
    variant: str = ""
    value: float
    unit: str
    direction: Literal["higher", "lower"]
    lowest: float | None = None
    highest: float | None = None


@dataclass(kw_only=True, slots=True)
class Held:
    """Bytes live at the peak that share a role, a module, an op and a holder.

    A record has up to a hundred of them, so that in a run of ten thousand cells a model each would take a gigabyte.
    """

    role: str
    module: str
    op: str
    holder: str | None = None
    bytes: int
    storages: int


class Record(BaseModel):
    """Everything a cell says of itself, at most 20 KiB of JSON."""

    row: Row
    cell: dict[str, Any]
    metrics: list[MetricValue] = Field(default_factory=list)
    held_at_peak: list[Held] = Field(default_factory=list)
    shared_parts: list[str] = Field(default_factory=list)
    uncounted: dict[str, int] = Field(default_factory=dict)
    unavailable: dict[str, str] = Field(default_factory=dict)
    environment: dict[str, Any] = Field(default_factory=dict)

    @property
    def not_measurable(self) -> str:
        """Why nothing was to be measured here, '' where something was; such a cell has not ended ok either."""
        return "" if self.row.status == "ok" else self.unavailable.get("peak_bytes", "")


class Timing(BaseModel):
    """A variant's timing pass: interleaved with every other variant of the run, alone on the machine.

    ``seconds_per_step`` holds the mean of each round's steps, in round order, so that two variants' lists pair up.
    """

    config_hash: str
    variant: str
    steps_per_round: int
    seconds_per_step: list[float]
    samples_per_step: float
    swap_share: float | None = None
    energy_joules_per_step: float | None = None


class Document(BaseModel):
    """A text that a trained method wrote on from ``prompt``, decoded as ``made_by`` says."""

    made_by: str
    prompt: str
    text: str


class Samples(BaseModel):
    """What a cell's method made after its training, kept in ``samples/<hash>.json``."""

    config_hash: str
    variant: str
    seed: int
    split: str
    documents: list[Document]
    schema_version: int = SCHEMA_VERSION


def column_type(name: str) -> str:
    """Return the pandas dtype of a column of ``results.parquet``: ``string``, ``Int64`` or ``Float64``."""
    hint = typing.get_type_hints(Row)[name]
    if isinstance(hint, types.UnionType):
        hint = next(t for t in typing.get_args(hint) if t is not type(None))
    return {int: "Int64", float: "Float64"}.get(hint, "string")


COLUMNS = tuple(Row.model_fields)
