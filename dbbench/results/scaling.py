"""How memory grows along an axis: the points that were estimated and the exponents fitted to them, ``scaling.json``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict

from dbbench.results.documents import read_document
from dbbench.results.roles import ROLES

SCALING_VERSION = 1
SCALING_FILE = "scaling.json"
ScalingAxis = Literal["batch", "depth", "width", "sequence", "blocks"]

#: What is followed along the axis, by the names of a row's columns. ``state`` is parameters, gradients and optimizer:
#: the sum of their own peaks. ``layers_…`` counts what was made inside the layers: embedding and head are left out.
OWN_PEAKS = tuple(f"{role}_own_peak_bytes" for role in ROLES)
LAYERS_OWN_PEAKS = tuple(f"layers_{name}" for name in OWN_PEAKS)
STATE_ROLES = ("parameters", "gradients", "optimizer")
QUANTITIES = (
    "peak_bytes",
    "allocated_bytes",
    "reserved_bytes",
    *OWN_PEAKS,
    "state_own_peak_bytes",
    *LAYERS_OWN_PEAKS,
)


class PowerLaw(BaseModel):
    """``bytes = c · value^exponent``, fitted by least squares to the logarithms of the points that are not zero.

    ``error`` is the exponent's standard error, None for two points, through which any line goes. Beside it, where the
    axis is one along which memory should be linear, the line ``fixed_bytes + bytes_per_unit · value`` fitted to all
    points, with the largest relative distance of a point from it.
    """

    quantity: str
    points: int
    exponent: float
    error: float | None
    fixed_bytes: float | None = None
    bytes_per_unit: float | None = None
    off_line: float | None = None


class ScalingPoint(BaseModel):
    """One value: bytes by quantity. A quantity that the estimate does not give is left out."""

    value: int
    options: dict[str, Any]
    bytes: dict[str, int]


class ScalingLine(BaseModel):
    """One variant along the axis. ``varies`` is False for a method without blocks on the axis of blocks: one point,
    at its own number."""

    variant: str
    method: str
    network: str
    network_size: str
    task: str
    precision: str
    residency: str | None
    varies: bool
    points: list[ScalingPoint]
    laws: list[PowerLaw]

    def law(self, quantity: str) -> PowerLaw | None:
        """Return the fit of ``quantity``, None where it is zero or has fewer than two points."""
        return next((law for law in self.laws if law.quantity == quantity), None)

    def series(self, quantity: str) -> list[tuple[int, int]]:
        """Return (value, bytes) of ``quantity`` in order of the values."""
        return [(point.value, point.bytes[quantity]) for point in self.points if quantity in point.bytes]


class Scaling(BaseModel):
    """All variants of a suite along one axis; ``failed`` has those that could not be estimated, with the reason."""

    model_config = ConfigDict(extra="forbid")

    scaling_version: int = SCALING_VERSION
    suite: str
    axis: ScalingAxis
    values: list[int]
    torch_version: str
    dbbench_version: str
    lines: list[ScalingLine]
    failed: dict[str, str] = {}

    @property
    def name(self) -> str:
        """What a report calls it: ``scaling over depth``."""
        return f"{self.suite} over {self.axis}"

    def reference(self, line: ScalingLine) -> ScalingLine | None:
        """Return backprop's line on the same network, None where there is none."""
        same = (line.network, line.network_size, line.task)
        found = (o for o in self.lines if o.method == "backprop" and (o.network, o.network_size, o.task) == same)
        return next(found, None)

    def points_frame(self) -> pd.DataFrame:
        """Return the raw points: a row for each variant and value, a column for each quantity in bytes."""
        rows = [
            {"variant": line.variant, "method": line.method, self.axis: point.value}
            | {quantity: point.bytes.get(quantity) for quantity in QUANTITIES}
            for line in self.lines
            for point in line.points
        ]
        return pd.DataFrame(rows).astype(dict.fromkeys(QUANTITIES, "Int64"))

    def laws_frame(self) -> pd.DataFrame:
        """Return the fits: a row for each variant and quantity."""
        rows = [{"variant": line.variant, **law.model_dump()} for line in self.lines for law in line.laws]
        return pd.DataFrame(rows, columns=["variant", *PowerLaw.model_fields])


def read_scaling(folder: Path) -> Scaling:
    """Return the scaling in ``folder``. Raises BadInput where its file is missing, torn or of another version."""
    return read_document(folder / SCALING_FILE, Scaling, "scaling", "dbbench scaling --out")
