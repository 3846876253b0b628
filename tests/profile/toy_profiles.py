"""Synthetic frames and profiles: a small transformer's step as a ledger would tell it, with knobs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from dbbench.results.holdings import held_at_peak
from dbbench.results.profile import Profile, StepFigures
from dbbench.results.roles import ROLES

MIB = 2**20
COLUMNS = ["step", "block", "phase", "role", "module", "op", "storage", "bytes", "made_by", "holder"]

#: (role, module, op that made it, holder, bytes)
Storage = tuple[str, str, str, str, int]


def frame_of(
    resident: Iterable[Storage], made: Iterable[Storage], step: int = 0, phase: str = "forward"
) -> pd.DataFrame:
    """One step: what is resident, then every storage made in order, then all of them freed in a backward."""
    rows: list[tuple[Any, ...]] = []
    for role, module, op, holder, size in resident:
        rows.append((step, 0, "resident", role, module, "(resident)", -1, size, op, holder))
    born = list(enumerate(made))
    for number, (role, module, op, holder, size) in born:
        rows.append((step, 0, phase, role, module, op, number, size, op, holder))
    for number, (role, module, op, holder, size) in reversed(born):
        rows.append((step, 0, "backward", role, module, "(free)", number, -size, op, holder))
    return pd.DataFrame(rows, columns=COLUMNS)


def transformer(layers: int = 12, gelu_bytes: int = 4 * MIB) -> tuple[list[Storage], list[Storage]]:
    """Return what is resident and what one forward makes, in the words of the ledger."""
    resident, made = [], []
    for i in range(layers):
        for name in ("attn.qkv", "attn.out", "mlp.up", "mlp.down"):
            resident.append(("parameters", f"layers.{i}.{name}", "weight", "", MIB))
            resident += [("optimizer", f"layers.{i}.{name}", key, "", MIB) for key in ("exp_avg", "exp_avg_sq")]
        for op, module, holder, size in (
            ("aten.addmm", "attn.qkv", f"input of scaled_dot_product_attention in layers.{i}.attn", 3 * MIB),
            ("aten.addmm", "mlp.up", f"input of gelu in layers.{i}.mlp.act", gelu_bytes),
            ("aten.gelu", "mlp.act", f"input of addmm in layers.{i}.mlp.down", 4 * MIB),
        ):
            made.append(("activations", f"layers.{i}.{module}", op, holder, size))
    made.append(("temporaries", "head", "aten._log_softmax", "", 2 * MIB))
    return resident, made


def profile_of(frame: pd.DataFrame, **changes: Any) -> Profile:
    """The profile that a ledger would leave beside ``frame``."""
    peak = held_at_peak(frame)
    split = {role: sum(row.bytes for row in peak.held if row.role == role) for role in ROLES}
    fields: dict[str, Any] = {
        "name": "toy",
        "source": "cpu",
        "device": "cpu",
        "torch_version": "2.13.0",
        "dbbench_version": "0.1.0",
        "peak_bytes": peak.total_bytes,
        "peak_phase": peak.phase,
        "peak_step": peak.step,
        "peak_block": peak.block,
        "peak_module": "head",
        "peak_op": "aten._log_softmax",
        "split": split,
        "own_peaks": split,
        "held": peak.held,
        "steps": [
            StepFigures(step=peak.step, peak_bytes=peak.total_bytes, flops={"forward": 10**9, "backward": 2 * 10**9})
        ],
    }
    return Profile(**(fields | changes))
