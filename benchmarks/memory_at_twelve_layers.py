"""What each method's memory comes to on twelve layers, traced without training, beside what its paper says.

    python benchmarks/memory_at_twelve_layers.py [--out reports/vision/twelve_layers.md]

The network is the default suite's at twice its depth. Every peak is the ledger's; the allocator's own peak of the
same untraced steps stands beside it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from dbbench.harness.resolve import resolve_cell
from dbbench.harness.tracing import Measured, measure
from dbbench.suite.cell import Budget, Cell, NetworkChoice, OptimizerChoice, TaskChoice

MIB = 2**20
Spec = tuple[str, dict[str, Any]]
PLAIN: dict[str, Spec] = {
    "backprop": ("backprop", {}),
    "checkpointing, every layer": ("checkpointing", {}),
    "checkpointing, sqrt": ("checkpointing", {"policy": "sqrt"}),
    "greedy, 4 stages": ("greedy", {"layers_per_stage": 3}),
    "diffusion_blocks, B = 1": ("diffusion_blocks", {"blocks": 1}),
}
BLOCKWISE: dict[str, Spec] = {
    f"diffusion_blocks, B = {blocks}, {residency}": ("diffusion_blocks", {"blocks": blocks, "residency": residency})
    for blocks in (2, 3, 4)
    for residency in ("all", "state", "active")
}
VARIANTS = PLAIN | BLOCKWISE


def traced(method: str, options: dict[str, Any], depth: int = 12) -> Measured:
    """Return the measuring passes of ``method`` on ``depth`` layers of the default suite's network."""
    cell = Cell(
        suite="twelve-layers",
        variant=method,
        method=method,
        options=options,
        task=TaskChoice(name="fashion_mnist_10k"),
        network=NetworkChoice(name="vit", size="tiny", depth=depth),
        optimizer=OptimizerChoice(),
        precision="fp32",
        budget=Budget(kind="samples", value=64),
        batch_size=64,
        seed=0,
        threads=1,
        evaluations=1,
        timeout_seconds=600,
    )
    resolved = resolve_cell(cell, "benchmark")
    return measure(resolved, resolved.load_task())


def main() -> None:
    """Trace every variant and print the table, or write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    out = parser.parse_args().out
    torch.set_num_threads(1)
    found = {name: traced(*spec) for name, spec in VARIANTS.items()}
    base = found["backprop"].account
    lines = [
        "# Twelve layers, traced without training",
        "",
        "vit tiny, 12 layers, width 64, batch 64 of Fashion-MNIST, AdamW (fused), fp32, CPU, "
        f"torch {torch.__version__}.",
        "",
        "| variant | peak MiB | allocator's own | × backprop | activations' own peak MiB | × backprop | × B |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name, (method, options) in VARIANTS.items():
        account, device = found[name].account, found[name].peaks.device_peak_bytes
        assert device is not None
        own, blocks = account.own_peaks["activations"], options.get("blocks") if method == "diffusion_blocks" else None
        ratio = own / base.own_peaks["activations"]
        peak = f"{account.peak_bytes / MIB:.2f} | {device / MIB:.2f} | {account.peak_bytes / base.peak_bytes:.3f}"
        per_block = "" if blocks is None else f"{ratio * blocks:.2f}"
        lines.append(f"| {name} | {peak} | {own / MIB:.2f} | {ratio:.3f} | {per_block} |")
    tax = found["diffusion_blocks, B = 1"].account.own_peaks["activations"] / base.own_peaks["activations"] - 1
    lines += ["", f"The tax of adaptive layer norm: with one block the activations are {tax:.1%} more than backprop's."]
    text = "\n".join(lines) + "\n"
    print(text)
    if out is not None:
        out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
