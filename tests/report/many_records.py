"""A folder as a large grid leaves it: 3,400 configurations on three seeds, records as large as real ones, a few torn.

PYTHONPATH=tests/report python -m many_records /tmp/many
"""

from __future__ import annotations

import json
import sys
import zlib
from dataclasses import replace
from pathlib import Path

from synthetic import USUAL, Variant, curves_of, record_of, timing_of

from dbbench.results.record import Held, MetricValue, Record
from dbbench.results.store import RunFolder, to_json

DEPTHS = range(2, 36, 2)
BATCHES = range(8, 168, 8)
SEEDS = 3
TORN = 5
CURVES = 60
METHODS = (*USUAL[:7], *(replace(USUAL[1], label=f"checkpointing_every_{n}") for n in (2, 3, 4)))
HOLDERS = (
    "input of addmm in network.layers.{}.mlp.down",
    "input of gelu in network.layers.{}.mlp.act",
    "output of scaled_dot_product_attention in network.layers.{}.attention",
    "input of native_layer_norm in network.layers.{}.norm1",
)


def write_many(path: Path, batches: range = BATCHES) -> int:
    """Write the run into ``path`` and return how many records it should have, torn ones included.

    Files are written as the store does, but not synced: ten thousand syncs would take longer than the test.
    """
    folder = RunFolder(path)
    for room in ("records", "timing"):
        (path / room).mkdir(parents=True)
    cells, count = [], 0
    for batch in batches:
        for method in METHODS:
            variant = replace(method, label=f"{method.label}.batch_size-{batch}")
            for depth in DEPTHS:
                for seed in range(SEEDS):
                    record = _record(variant, batch, depth, seed)
                    name = record.row.config_hash
                    body = to_json(record)
                    if count % 2_001 == 2_000:  # a few were torn by a full disk
                        body = body[: len(body) // 2]
                    (path / "records" / f"{name}.json").write_bytes(body)
                    cells.append({"config_hash": name, "variant": variant.label, "label": f"{variant.label} {seed}"})
                    if count < CURVES:
                        folder.write_curves(name, curves_of(record))
                    count += 1
                timing = timing_of(variant).model_copy(
                    update={"config_hash": _hash(variant, depth, 0), "variant": variant.label}
                )
                (path / "timing" / f"{timing.config_hash}.json").write_bytes(to_json(timing))
    info = {"suite": "vision", "variants": list(dict.fromkeys(c["variant"] for c in cells)), "cells": cells}
    (path / "run.json").write_bytes(json.dumps(info).encode())
    return count


def _hash(variant: Variant, depth: int, seed: int) -> str:
    return f"{zlib.crc32(f'{variant.label} {depth}'.encode()):012x}{seed:04x}"


def _record(variant: Variant, batch: int, depth: int, seed: int) -> Record:
    """A cell of the grid: activations grow with batch and depth, the metric with depth, and every layer holds some."""
    scale = batch / 128 * depth / 6
    score = variant.scores[seed % len(variant.scores)] - 0.2 / depth
    sized = replace(variant, activations_mib=variant.activations_mib * scale, state_mib=variant.state_mib * depth / 6)
    record = record_of(
        replace(sized, scores=(score,)), seed, config_hash=_hash(variant, depth, seed), depth=depth, batch_size=batch
    )
    record.cell |= {"network": {"name": "vit", "size": "tiny", "depth": depth}, "batch_size": batch}
    held = [line for line in record.held_at_peak if line.role != "activations"]
    size = record.row.activations_bytes or 0
    parts = [(holder, layer) for layer in range(10) for holder in HOLDERS]
    for i, (holder, layer) in enumerate(parts):
        part = size // len(parts) + (size % len(parts) if i == 0 else 0)
        module = f"network.layers.{layer}.mlp.up"
        held.append(
            Held(
                role="activations", module=module, op="aten.addmm", holder=holder.format(layer), bytes=part, storages=1
            )
        )
    record.held_at_peak = held
    common = {"split": "test", "step": 800, "value": score, "direction": "higher"}
    record.metrics += [
        MetricValue(name=name, variant=f"head_{i}", unit="fraction", **common)
        for i in range(8)
        for name in ("accuracy", "cross_entropy")
    ]
    return record


if __name__ == "__main__":
    print(write_many(Path(sys.argv[1])), "records")
