"""What a search for the largest value that fits leaves: every probe, and each memory's edge, in ``fit.json``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict, model_validator

from dbbench.results.documents import read_document

FIT_VERSION = 1
FIT_FILE = "fit.json"
SearchAxis = Literal["batch", "depth", "sequence"]


class FitProbe(BaseModel):
    """One value that was estimated: the tensors' peak, and what the allocator takes where it is given no end.

    ``fits`` has an entry for each memory; there the allocator is replayed under that memory, and may give its cache
    back before it fails. ``prediction_fits`` says for each memory whether a prediction on as large a batch fits after
    training that does; None where ``fits`` is the answer for both (`Fit.prediction`).
    """

    value: int
    peak_bytes: int
    allocated_bytes: int
    reserved_bytes: int
    fits: list[bool]
    prediction_fits: list[bool] | None = None


class FitEdge(BaseModel):
    """A memory's answer: ``largest`` fits (None: not even the lowest value), ``following``, the next one, does not.

    ``following`` is None where the search ended at its cap. ``gaps`` are the probed values below ``largest`` that do
    not fit: what fits is not monotone there.
    """

    largest: int | None
    following: int | None
    gaps: list[int] = []


class FitLine(BaseModel):
    """One variant: its probes in order of their values, and an edge for each memory."""

    suite: str
    variant: str
    method: str
    options: dict[str, Any]
    network: str
    network_size: str
    task: str
    precision: str
    residency: str | None
    parameters_count: int | None
    lowest: int
    probes: list[FitProbe]
    edges: list[FitEdge]

    def probe(self, value: int | None) -> FitProbe | None:
        """Return the probe of ``value``."""
        return next((p for p in self.probes if p.value == value), None)


class Fit(BaseModel):
    """A whole search. Of each device's memory ``headroom_bytes`` are left to its context and libraries.

    What fits is training, and a prediction stands ``beside`` it; in files of an earlier dbbench, which do not say,
    it ``decides`` with training. ``failed`` has the variants that could not be estimated, with the reason. Building
    one raises ValidationError unless every edge stands on probes: ``largest`` fits and ``following`` does not.
    """

    model_config = ConfigDict(extra="forbid")

    fit_version: int = FIT_VERSION
    axis: SearchAxis
    prediction: Literal["beside", "decides"] = "decides"
    highest: int
    memories_bytes: list[int]
    headroom_bytes: int
    allocator: str
    torch_version: str
    dbbench_version: str
    lines: list[FitLine]
    failed: dict[str, str] = {}

    @model_validator(mode="after")
    def _stands_on_probes(self) -> Fit:
        for line in self.lines:
            for memory, edge in enumerate(line.edges):
                for value, fits in ((edge.largest, True), (edge.following, False)):
                    probe = line.probe(value)
                    if value is not None and (probe is None or probe.fits[memory] is not fits):
                        raise ValueError(f"{line.variant}: no probe says that {value} {'fits' if fits else 'does not'}")
        return self

    def frame(self) -> pd.DataFrame:
        """Return a row for each variant and memory: the edge, and peak and reserved bytes on both sides of it."""
        rows = []
        for line in self.lines:
            for memory, edge in enumerate(line.edges):
                row: dict[str, Any] = {
                    "suite": line.suite,
                    "network": line.network,
                    "network_size": line.network_size,
                    "variant": line.variant,
                    "method": line.method,
                    "residency": line.residency,
                    "precision": line.precision,
                    "memory_bytes": self.memories_bytes[memory],
                    f"largest_{self.axis}": edge.largest,
                    f"following_{self.axis}": edge.following,
                    "ratio_to_backprop": self.ratio(line, memory),
                    "gaps": " ".join(map(str, edge.gaps)),
                    "probes": len(line.probes),
                }
                if self.prediction == "beside":
                    row["prediction_fits_there"] = self.predicts(line, memory)
                for name, probe in (("largest", line.probe(edge.largest)), ("following", line.probe(edge.following))):
                    for figure in ("peak_bytes", "allocated_bytes", "reserved_bytes"):
                        row[f"{name}_{figure}"] = getattr(probe, figure, None)
                rows.append(row)
        frame = pd.DataFrame(rows)
        counts = [c for c in rows[0] if c.startswith(("largest_", "following_"))]
        kinds: dict[str, Any] = dict.fromkeys(counts, "Int64") | {"ratio_to_backprop": "Float64"}
        return frame.astype(kinds | ({"prediction_fits_there": "boolean"} if self.prediction == "beside" else {}))

    def predicts(self, line: FitLine, memory: int) -> bool | None:
        """Return whether a prediction fits as well at the variant's largest value; None where there is no such value.

        ``memory`` is the number of the memory. None also where a prediction `decides`.
        """
        probe = line.probe(line.edges[memory].largest)
        return None if probe is None or probe.prediction_fits is None else probe.prediction_fits[memory]

    def ratio(self, line: FitLine, memory: int) -> float | None:
        """Return the variant's largest value over backprop's on the same network, None where either has none.

        ``memory`` is the number of the memory.
        """
        same = [
            other
            for other in self.lines
            if other.method == "backprop"
            and (other.suite, other.network, other.network_size) == (line.suite, line.network, line.network_size)
        ]
        mine, theirs = line.edges[memory].largest, same[0].edges[memory].largest if same else None
        return mine / theirs if mine is not None and theirs else None


def read_fit(folder: Path) -> Fit:
    """Return the search in ``folder``. Raises BadInput where its file is missing, torn or of another version."""
    return read_document(folder / FIT_FILE, Fit, "fit", "dbbench fit --out")
