"""How a figure of the device stands to another of the same cell: equal to the byte, within 1 %, or it differs."""

from __future__ import annotations

from typing import Any

from dbbench.results.calibration import Side, largest_op
from dbbench.results.roles import ROLES

WITHIN_PERCENT = 1.0


def verdict(measured: int, other: int, whole: int) -> str:
    """Return ``equal``, ``within 1 %`` or ``differs``; the difference is taken as a part of ``whole``."""
    if measured == other:
        return "equal"
    return "within 1 %" if abs(measured - other) <= whole * WITHIN_PERCENT / 100 else "differs"


def compare(device: Side, other: Side) -> list[dict[str, Any]]:
    """Compare the ledger's peak and every role at it; one row each that either side has.

    A row has the figure, both sides' bytes, the verdict, and where they are not equal the op that makes most of it.
    """
    whole = device.totals["peak"]
    rows = []
    for figure in ("peak", *ROLES):
        roles = ROLES if figure == "peak" else (figure,)
        pair = [side.totals["peak"] if figure == "peak" else side.roles.get(figure, 0) for side in (device, other)]
        if any(pair):
            said = verdict(pair[0], pair[1], whole)
            where = "" if said == "equal" else largest_op(other, device, roles)
            rows.append({"figure": figure, "device": pair[0], "other": pair[1], "verdict": said, "where": where})
    return rows
