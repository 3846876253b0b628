"""The cells that the stages measure: networks at a GPU's sizes, or at a toy's."""

from __future__ import annotations

from typing import Any, Literal, cast

from benchmarks.on_gpu.stage import Setting
from dbbench.suite.cell import Budget, Cell, NetworkChoice, OptimizerChoice, TaskChoice

Precision = Literal["fp32", "bf16", "autocast_bf16"]
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "backprop": ("backprop", {}),
    "checkpointing": ("checkpointing", {"policy": "every_layer"}),
    "greedy": ("greedy", {"stages": 2}),
    "blocks_all": ("diffusion_blocks", {"blocks": 2, "residency": "all"}),
    "blocks_state": ("diffusion_blocks", {"blocks": 2, "residency": "state"}),
    "blocks_active": ("diffusion_blocks", {"blocks": 2, "residency": "active"}),
}


def cell(
    name: str,
    method: str,
    task: dict[str, Any],
    network: dict[str, Any],
    setting: Setting,
    *,
    precision: str = "fp32",
    batch_size: int = 64,
) -> Cell:
    """Return a cell of ``METHODS`` that is measured and not trained."""
    kind, options = METHODS[method]
    return Cell(
        suite="on_gpu",
        variant=name,
        method=kind,
        options=options,
        task=TaskChoice(**task),
        network=NetworkChoice(**network),
        optimizer=OptimizerChoice(lr=1e-4, schedule="constant", warmup=0.0),
        precision=cast(Precision, precision),
        budget=Budget(kind="samples", value=1_000_000),
        batch_size=batch_size,
        seed=0,
        threads=1 if setting.toy else 4,
        evaluations=1,
        timeout_seconds=600,
        device=setting.device,
    )


IMAGES_32 = {"name": "images", "image_size": 32, "classes": 100}
#: Of the ledger's check: task, network, batch size; the second pair at a toy's size.
CHECKED: dict[str, tuple[dict[str, Any], dict[str, Any], int]] = {
    "vit6": (IMAGES_32, {"name": "vit", "size": "cifar", "depth": 6}, 128),
    "vit12": (IMAGES_32, {"name": "vit", "size": "cifar", "depth": 12}, 128),
    "llama": (
        {"name": "tokens", "sequence_length": 512, "vocabulary": 8192},
        {"name": "llama", "size": "124m", "depth": 6},
        8,
    ),
    "dit": ({"name": "latents"}, {"name": "dit", "size": "S/2", "depth": 6}, 32),
}
CHECKED_TOYS: dict[str, tuple[dict[str, Any], dict[str, Any], int]] = {
    "vit": ({"name": "images", "image_size": 16, "classes": 10}, {"name": "vit", "size": "micro"}, 8),
    "llama": (
        {"name": "tokens", "sequence_length": 32, "vocabulary": 256},
        {"name": "llama", "size": "micro"},
        4,
    ),
    "dit": ({"name": "latents", "size": 8}, {"name": "dit", "size": "micro/2"}, 4),
}
