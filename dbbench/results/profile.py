"""What a ledger leaves of a stranger's step: `Profile`, and the folder it is kept in.

The folder of ``ledger.save(folder)`` and ``dbbench profile --out`` holds ``profile.json`` and ``trace.parquet``, the
classified events that every figure of the profile can be recomputed from.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from dbbench.errors import BadInput
from dbbench.files import write_atomically
from dbbench.results.documents import read_document
from dbbench.results.holdings import held_at_peak
from dbbench.results.record import Held
from dbbench.results.roles import PHASES, ROLES
from dbbench.results.store import read_trace, to_json, write_trace

PROFILE_VERSION = 1
PROFILE_FILE = "profile.json"
TRACE_FILE = "trace.parquet"


class StepFigures(BaseModel):
    """One traced step: its own peak, and its floating-point operations by phase."""

    step: int
    block: int = 0
    peak_bytes: int
    flops: dict[str, int] = Field(default_factory=dict)


class DeviceFigures(BaseModel):
    """The device allocator's own account of an untraced step; None is not available, and ``reasons`` says why.

    ``simulated``: no device was asked, the traced steps were replayed through the rules of the CUDA caching allocator.
    """

    simulated: bool = False
    device_peak_bytes: int | None = None
    allocated_bytes: int | None = None
    reserved_bytes: int | None = None
    nvml_process_peak_bytes: int | None = None
    workspace_op: str | None = None
    reasons: dict[str, str] = Field(default_factory=dict)


class Profile(BaseModel):
    """A ledger's account of a training step. Bytes and FLOPs are exact integers, times are in seconds.

    ``held`` is complete. Building one raises ValidationError unless roles and ``held`` sum to the peak, role by role.
    """

    model_config = ConfigDict(extra="forbid")

    profile_version: int = PROFILE_VERSION
    name: str
    source: Literal["cpu", "cuda", "fake"]
    device: str
    torch_version: str
    dbbench_version: str
    # the instant of the peak
    peak_bytes: int
    peak_phase: str | None = None
    peak_step: int | None = None
    peak_block: int | None = None
    peak_module: str = ""
    peak_op: str = ""
    split: dict[str, int]
    own_peaks: dict[str, int]
    held: list[Held]
    # alive when the ledger opened, as far as Python can see; and of that, in no declared role
    resident_bytes: int = 0
    undeclared_bytes: int = 0
    # made by the steps, no part of the model, and still held when the ledger closed
    kept_bytes: int = 0
    steps: list[StepFigures] = Field(default_factory=list)
    attention: str = ""
    uncounted: dict[str, int] = Field(default_factory=dict)
    # work that left the process or the dispatcher, by kind: nothing of it is in any figure
    unmeasured_work: dict[str, int] = Field(default_factory=dict)
    ended_early: str | None = None
    device_figures: DeviceFigures | None = None
    notes: list[str] = Field(default_factory=list)
    # what a rate needs
    seconds_per_step: list[float] = Field(default_factory=list)
    peak_flops_per_second: float | None = None
    peak_flops_source: str | None = None

    @property
    def kernel_workspace_bytes(self) -> int | None:
        """What the device's own peak holds beyond the ledger's, None where the device gave none."""
        figures = self.device_figures
        if figures is None or figures.device_peak_bytes is None:
            return None
        return figures.device_peak_bytes - self.peak_bytes

    @property
    def flops_per_step(self) -> dict[str, int]:
        """FLOPs by phase, in the order of `PHASES`: the mean over the traced steps, rounded."""
        if not self.steps:
            return {}
        sums = {phase: sum(step.flops.get(phase, 0) for step in self.steps) for phase in PHASES}
        seen = {phase for step in self.steps for phase in step.flops}
        return {phase: round(total / len(self.steps)) for phase, total in sums.items() if phase in seen}

    @field_validator("split", "own_peaks")
    @classmethod
    def _of_before_unseen(cls, sizes: dict[str, int]) -> dict[str, int]:
        return {"unseen": 0} | sizes  # a role that older profiles do not have

    @model_validator(mode="after")
    def _sums_to_the_peak(self) -> Self:
        for what, sizes in (("split", self.split), ("own_peaks", self.own_peaks)):
            if set(sizes) != set(ROLES):
                raise ValueError(f"{what} does not have exactly the roles {', '.join(ROLES)}")
        if sum(self.split.values()) != self.peak_bytes:
            raise ValueError(f"the roles sum to {sum(self.split.values())} bytes, the peak is {self.peak_bytes}")
        for role in {row.role for row in self.held} | set(ROLES):
            size = sum(row.bytes for row in self.held if row.role == role)
            if size != self.split.get(role, 0):
                raise ValueError(f"what is held as {role} sums to {size} bytes, its role to {self.split.get(role, 0)}")
        return self


def write_profile(folder: Path, profile: Profile, frame: pd.DataFrame) -> None:
    """Write ``profile.json`` and ``trace.parquet`` into ``folder``, which is made; each file is replaced whole.

    ``frame`` is the ledger's ``timeline()``. The profile comes last, so that it never stands beside a trace it is
    not of without `read_profile` seeing it.
    """
    write_trace(folder / TRACE_FILE, frame)
    write_atomically(folder / PROFILE_FILE, to_json(profile))


def read_profile(folder: Path) -> tuple[Profile, pd.DataFrame]:
    """Return what `write_profile` wrote.

    Raises BadInput, one line, where a file is missing, torn, another program's, of a newer dbbench, or where the two
    are not of the same step.
    """
    profile = read_document(folder / PROFILE_FILE, Profile, "profile", "a ledger's save() or dbbench profile --out")
    frame = read_trace(folder / TRACE_FILE)
    if frame is None:
        raise BadInput(f"{folder / TRACE_FILE}: missing beside its profile")
    highest = 0 if frame.empty else held_at_peak(frame).total_bytes
    if highest != profile.peak_bytes:
        raise BadInput(
            f"{folder}: the trace rises to {highest} bytes, the profile's peak is {profile.peak_bytes}; "
            "the two files are not of the same step"
        )
    return profile, frame
