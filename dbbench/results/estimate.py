"""What one cell would take, said without a device: a record like a run's, and the allocator's simulated figures."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from dbbench.results.record import Record


class AllocatorFigures(BaseModel):
    """The caching allocator's peaks over the traced steps, simulated under ``settings`` (PYTORCH_ALLOC_CONF's syntax).

    ``capacity_bytes`` is the memory that it may reserve, None where it has no end. ``retries`` counts how often it had
    to give its cache back to go on; where even that did not help training is ``out_of_memory``, and the peaks are those
    until then. ``prediction_fits`` says whether a prediction on as large a batch, after the training, has room as well;
    None where training has none.
    """

    settings: str
    capacity_bytes: int | None = None
    requested_bytes: int
    allocated_bytes: int
    reserved_bytes: int
    retries: int
    out_of_memory: bool
    prediction_fits: bool | None = None


class Estimate(BaseModel):
    """One cell on fake tensors.

    ``allocators`` has an entry for each of the settings that were asked for, in their order. ``layers_own_peaks`` are
    the roles' own peaks without embedding, head and whatever else lies outside the layers. ``updated_bytes_per_step``
    are those of the gradients that a step's update reads, mean over blocks: of the parameters that it updates.
    ``masked_flops_per_step`` are those FLOPs of attention that a kernel may leave out under a causal mask.

    A cell that failed has a record with its error, and nothing else.
    """

    record: Record
    allocators: list[AllocatorFigures] = Field(default_factory=list)
    layers_own_peaks: dict[str, int] = Field(default_factory=dict)
    updated_bytes_per_step: int | None = None
    masked_flops_per_step: int | None = None


Part = Literal["arithmetic", "optimizer", "transfers"]
#: ``by giving back the cache``: only where the allocator returns its free segments to the device and asks again.
Fits = Literal["yes", "by giving back the cache", "no"]


class Bound(BaseModel):
    """The least time of a step in seconds, the part of the work that ``binds``, and each part's own time.

    ``missing`` says what could not be counted in, and why.
    """

    seconds: float
    binds: Part
    parts_seconds: dict[Part, float]
    missing: str | None = None


class Budget(BaseModel):
    """The memory that cells were held against, in bytes: ``memory_bytes`` less the allowance ``headroom_bytes``.

    ``device_model`` and its ``sources`` are those of `dbbench.estimate.devices`, None where a size alone was given.
    """

    memory_bytes: int
    headroom_bytes: int
    device_model: str | None = None
    sources: list[str] = Field(default_factory=list)


class EstimateLine(BaseModel):
    """A variant in a table of estimates. Without a budget it neither fits nor does not; without a device no bound."""

    config_hash: str
    variant: str
    allocators: list[AllocatorFigures]
    layers_own_peaks: dict[str, int]
    updated_bytes_per_step: int | None
    masked_flops_per_step: int | None
    bound: Bound | None = None
    fits: Fits | None = None


class Estimates(BaseModel):
    """``estimates.json``: what a suite would take, beside the records of its cells. ``allocator`` is what was asked for
    in PYTORCH_ALLOC_CONF's syntax, '' for torch's defaults."""

    model_config = ConfigDict(extra="forbid")

    estimates_version: int = 1
    suite: str
    allocator: str
    budget: Budget | None
    torch_version: str
    dbbench_version: str
    lines: list[EstimateLine]
