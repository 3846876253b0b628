"""What one cell would take, said without a device: a record like a run's, and the allocator's simulated figures."""

from __future__ import annotations

from pydantic import BaseModel, Field

from dbbench.results.record import Record


class AllocatorFigures(BaseModel):
    """The caching allocator's peaks over the traced steps, simulated under ``settings`` (PYTORCH_ALLOC_CONF's syntax).

    ``capacity_bytes`` is the memory that it may reserve, None where it has no end. ``retries`` counts how often it had
    to give its cache back to go on; where even that did not help it is ``out_of_memory``, and the peaks are those
    until then.
    """

    settings: str
    capacity_bytes: int | None = None
    requested_bytes: int
    allocated_bytes: int
    reserved_bytes: int
    retries: int
    out_of_memory: bool


class Estimate(BaseModel):
    """One cell on fake tensors.

    ``allocators`` has an entry for each of the settings that were asked for, in their order. ``layers_own_peaks`` are
    the roles' own peaks without embedding, head and whatever else lies outside the layers. ``updated_bytes_per_step``
    are those of the gradients that a step's update reads, mean over blocks: of the parameters that it updates.

    A cell that failed has a record with its error, and nothing else.
    """

    record: Record
    allocators: list[AllocatorFigures] = Field(default_factory=list)
    layers_own_peaks: dict[str, int] = Field(default_factory=dict)
    updated_bytes_per_step: int | None = None
