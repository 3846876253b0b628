"""A synthetic run: deterministic figures that obey the ledger's rules, with knobs for everything that can go wrong."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dbbench.results.record import Held, MetricValue, Record, Row, Timing
from dbbench.results.roles import ROLES
from dbbench.results.store import RunFolder

MIB = 2**20
LAYERS = 6


@dataclass(frozen=True)
class Variant:
    """One variant of a synthetic run; ``scores`` are its metric on seeds 0, 1, …"""

    label: str
    method: str
    scores: Sequence[float]
    options: dict[str, Any]
    activations_mib: float = 120.0
    state_mib: float = 3.0
    flops: tuple[int, int, int] = (10**9, 2 * 10**9, 0)
    network: str = "vit"
    samples: int = 102_400
    step_seconds: float = 0.1
    budget: str = "layer_updates"


def blocks(count: int, residency: str) -> dict[str, Any]:
    return {"blocks": count, "residency": residency, "inference_steps": count}


USUAL = (
    Variant("backprop", "backprop", (0.861, 0.858, 0.866), {}),
    Variant(
        "checkpointing",
        "checkpointing",
        (0.861, 0.858, 0.866),
        {"policy": "every_layer"},
        22.0,
        flops=(10**9, 2 * 10**9, 9 * 10**8),
        step_seconds=0.13,
    ),
    Variant("greedy", "greedy", (0.842, 0.836, 0.838), {"layers_per_stage": 1}, 25.0, step_seconds=0.05),
    Variant(
        "diffusion_blocks_b3_all",
        "diffusion_blocks",
        (0.803, 0.811, 0.795),
        blocks(3, "all"),
        52.0,
        3.4,
        flops=(4 * 10**8, 8 * 10**8, 0),
        samples=307_200,
        step_seconds=0.045,
    ),
    Variant(
        "diffusion_blocks_b3_active",
        "diffusion_blocks",
        (0.803, 0.811, 0.795),
        blocks(3, "active"),
        50.0,
        1.3,
        flops=(4 * 10**8, 8 * 10**8, 0),
        samples=307_200,
        step_seconds=0.052,
    ),
    Variant(
        "diffusion_blocks_b1",
        "diffusion_blocks",
        (0.829, 0.835, 0.826),
        blocks(1, "all"),
        148.0,
        3.4,
        flops=(12 * 10**8, 24 * 10**8, 0),
        step_seconds=0.12,
    ),
    Variant(
        "diffusion_blocks_b3_equal_samples",
        "diffusion_blocks",
        (0.761, 0.77, 0.755),
        blocks(3, "all"),
        52.0,
        3.4,
        flops=(4 * 10**8, 8 * 10**8, 0),
        budget="samples",
        step_seconds=0.045,
    ),
    Variant(
        "linear", "backprop", (0.801, 0.802, 0.8), {}, 1.5, 0.1, (10**6, 2 * 10**6, 0), "linear", step_seconds=2e-3
    ),
)


def record_of(variant: Variant, seed: int, **changes: Any) -> Record:
    """A finished cell whose roles sum to its peak; ``changes`` replace fields of its row."""
    roles = roles_of(variant)
    row = Row(**(configured(variant, seed) | measured(variant, seed, roles) | changes))
    metrics = []
    if row.metric_value is not None:
        name = (row.metric or "accuracy").removeprefix("test_")
        common: dict[str, Any] = {"step": 800, "name": name, "unit": "fraction", "direction": "higher"}
        if name != "accuracy":
            common |= {"unit": "bits", "direction": "lower"}
        for split, shift in (("validation", 0.004), ("test", 0.0)):
            metrics.append(MetricValue(split=split, value=row.metric_value - shift, **common))
        if variant.method == "diffusion_blocks":
            metrics.append(MetricValue(split="test", variant="first_block", value=row.metric_value - 0.1, **common))
    return Record(
        row=row,
        cell=cell_of(row, variant),
        metrics=metrics,
        held_at_peak=held_of(roles),
        shared_parts=["embedding", "norm", "head"],
        unavailable={"device_peak_bytes": "no CUDA device", "energy_joules": "no NVML"},
        environment={"torch": "2.13.0+cpu", "python": "3.11.9", "threads": 1},
    )


def roles_of(variant: Variant) -> dict[str, int]:
    state = int(variant.state_mib * MIB)
    return dict.fromkeys(ROLES, 0) | {
        "parameters": state,
        "gradients": state // 5,
        "optimizer": 2 * state,
        "activations": int(variant.activations_mib * MIB),
        "temporaries": 3 * MIB + 17,
        "buffers": 12_345,
        "inputs": 401_408,
        "retained": 5_120,
        "other": 5_056,
    }


def configured(variant: Variant, seed: int) -> dict[str, Any]:
    """What is known of a cell before it runs."""
    return {
        "suite": "vision",
        "task": "fashion_mnist_10k",
        "network": variant.network,
        "variant": variant.label,
        "method": variant.method,
        "options_json": json.dumps(variant.options),
        "seed": seed,
        "status": "ok",
        "config_hash": f"{zlib.crc32(variant.label.encode()):012x}{seed:04x}",
        "network_size": "tiny",
        "depth": LAYERS,
        "batch_size": 128,
        "blocks": variant.options.get("blocks"),
        "residency": variant.options.get("residency"),
        "precision": "fp32",
        "optimizer": "adamw",
        "optimizer_implementation": "fused",
        "learning_rate": 1e-3,
        "budget": variant.budget,
        "budget_value": {"layer_updates": 4800, "samples": 102_400}[variant.budget],
        "threads": 1,
        "device": "cpu",
        "torch_version": "2.13.0+cpu",
        "git_commit": "0123abcd",
        "dataset_sha256": "ab" * 32,
        "dbbench_version": "0.1.0",
    }


def measured(variant: Variant, seed: int, roles: dict[str, int]) -> dict[str, Any]:
    """What a finished cell adds."""
    forward, backward, recompute = variant.flops
    step = forward + backward + recompute
    fields: dict[str, Any] = {
        "source": "ledger",
        "width": 64,
        "sequence_length": 17,
        "parameters_count": roles["parameters"] // 4,
        "peak_bytes": sum(roles.values()),
        "peak_phase": "backward",
        "peak_step": 2,
        "peak_block": 0,
        "shared_parameters_bytes": 40_000,
        "host_transfer_bytes_per_step": 0,
        "inference_peak_bytes": 9 * MIB,
        "flops_forward": forward,
        "flops_backward": backward,
        "flops_recompute": recompute,
        "flops_step": step,
        "flops_train_total": step * variant.samples // 128,
        "flops_inference": forward // 3,
        "uncounted_ops": "",
        "metric": "test_accuracy",
        "metric_value": variant.scores[seed % len(variant.scores)],
        "samples": variant.samples,
        "layer_updates": 4800,
        "shared_updates": variant.samples // 128,
        "train_seconds": variant.step_seconds * variant.samples / 128 + seed,
    }
    for role, size in roles.items():
        fields |= {f"{role}_bytes": size, f"{role}_own_peak_bytes": size}
    return fields | {"gradients_own_peak_bytes": roles["parameters"]}


def cell_of(row: Row, variant: Variant) -> dict[str, Any]:
    return {
        "suite": row.suite,
        "variant": row.variant,
        "method": row.method,
        "options": variant.options,
        "seed": row.seed,
        "network": {"name": row.network, "size": row.network_size, "depth": row.depth},
        "task": {"name": row.task},
        "budget": {"kind": row.budget, "value": row.budget_value},
        "batch_size": row.batch_size,
        "timeout_seconds": 600.0,
    }


def held_of(roles: dict[str, int]) -> list[Held]:
    """Each role's bytes over six modules, the remainder in the first, so that the lines sum to the roles."""
    found = []
    for role, size in roles.items():
        holder = "frame train_step: logits" if role == "retained" else None
        for i in range(6 if size else 0):
            part = size // 6 + (size % 6 if i == 0 else 0)
            found.append(Held(role=role, module=f"layers.{i}", op="aten.mm", holder=holder, bytes=part, storages=4))
    return found


def failed(variant: Variant, seed: int, status: str, error: str) -> Record:
    """A cell that left nothing but its name and its error."""
    row = Row(**(configured(variant, seed) | {"status": status, "error": error}))
    environment = {"log": f"logs/{row.config_hash}.log"}
    return Record(row=row, cell=cell_of(row, variant), environment=environment)


def trace_of(
    record: Record, residents: tuple[str, ...] = ("parameters", "optimizer", "inputs", "buffers")
) -> pd.DataFrame:
    """Two traced steps; the live bytes of the second rise to the record's peak exactly, inside its backward."""
    row, rows = record.row, []
    sizes = {role: getattr(row, f"{role}_bytes") for role in ROLES}
    for step, scale in ((1, 0.5), (2, 1.0)):
        rows += [(step, 0, "resident", role, "", "(resident)", 10 + i, sizes[role]) for i, role in enumerate(residents)]
        moving = {role: sizes[role] for role in ROLES if role not in residents and sizes[role]}
        parts = [(role, int(size * scale) // LAYERS) for role, size in moving.items() if role == "activations"] * LAYERS
        rows += [
            (step, 0, "forward", role, f"layers.{i}", "aten.mm", 100 + i, size) for i, (role, size) in enumerate(parts)
        ]
        extra = {role: int(size * scale) for role, size in moving.items() if role != "activations"}
        extra["activations"] = int(moving["activations"] * scale) - sum(size for _, size in parts)
        rows += [(step, 0, "backward", role, "head", "aten.mm", 200, size) for role, size in extra.items()]
        for i, (role, size) in reversed(list(enumerate(parts))):
            rows.append((step, 0, "backward", role, f"layers.{i}", "aten.mm", 100 + i, -size))
            if row.flops_recompute:
                rows.append((step, 0, "recompute", "temporaries", f"layers.{i}", "aten.mm", 300 + i, size // 2))
                rows.append((step, 0, "recompute", "temporaries", f"layers.{i}", "aten.mm", 300 + i, -(size // 2)))
        rows += [(step, 0, "optimizer", role, "head", "aten.mm", 200, -size) for role, size in extra.items()]
    names = ["step", "block", "phase", "role", "module", "op", "storage", "bytes"]
    frame = pd.DataFrame(rows, columns=names)
    maker = frame["op"].where(frame["phase"] != "resident", "weight")
    return frame.assign(made_by=maker, holder="")


def curves_of(record: Record) -> pd.DataFrame:
    """Ten evaluations that rise to the record's metric."""
    rows, row = [], record.row
    for i in range(1, 11):
        done = i / 10
        wobble = 0.01 * np.sin(7.0 * i + row.seed)
        value = row.metric_value * (1 - 0.6 * np.exp(-4 * done)) + wobble * (1 - done)
        for name, figure in (("accuracy", value), ("loss", 1.5 - value)):
            rows.append((i * 80, i * row.samples // 10, i * 480, done, "validation", name, figure))
    names = ["step", "samples", "layer_updates", "budget_fraction", "split", "name", "value"]
    return pd.DataFrame(rows, columns=names)


def timing_of(variant: Variant) -> Timing:
    record = record_of(variant, 0)
    noise = [1.0, 1.3, 0.9, 1.1, 1.0, 2.0, 1.05, 0.95, 1.0]
    return Timing(
        config_hash=record.row.config_hash,
        variant=variant.label,
        steps_per_round=20,
        seconds_per_step=[variant.step_seconds * n for n in noise],
        samples_per_step=128.0,
        swap_share=0.12 if variant.options.get("residency") == "active" else None,
    )


def build(
    path: Path,
    variants: Sequence[Variant] = USUAL,
    seeds: int = 3,
    failures: Sequence[Record] = (),
    traces: bool = True,
    curves: bool = True,
    timings: bool = True,
) -> RunFolder:
    """Write a run; a record in ``failures`` takes the place of the finished cell of the same hash."""
    folder = RunFolder(path)
    folder.write_run(
        {"suite": "vision", "variants": [v.label for v in variants], "tuning": "suites/tuning/vision.yaml"}
    )
    lost = {record.row.config_hash for record in failures}
    for variant in variants:
        for seed in range(seeds):
            record = record_of(variant, seed)
            if record.row.config_hash in lost:
                continue
            folder.write_record(record)
            if traces:
                folder.write_trace(record.row.config_hash, trace_of(record))
            if curves:
                folder.write_curves(record.row.config_hash, curves_of(record))
        if timings:
            folder.write_timing(timing_of(variant))
    for record in failures:
        folder.write_record(record)
    return folder
