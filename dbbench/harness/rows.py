"""The columns of a row that say which cell it is, and the environment that stands beside them."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from typing import Any

import torch

from dbbench.harness.provenance import dbbench_version, device_class, git_commit
from dbbench.harness.resolve import Resolved
from dbbench.methods.base import Method


def identity_row(resolved: Resolved, config_hash: str, dataset_sha256: str, status: str) -> dict[str, Any]:
    """Return those columns of `dbbench.results.record.Row` that are known before anything has run."""
    cell = resolved.cell
    return {
        "suite": cell.suite,
        "task": cell.task.name,
        "network": cell.network.name,
        "variant": cell.variant,
        "method": cell.method,
        "options_json": resolved.options.model_dump_json(),
        "seed": cell.seed,
        "status": status,
        "config_hash": config_hash,
        "network_size": cell.network.size,
        "depth": resolved.depth,
        "batch_size": cell.batch_size,
        "precision": cell.precision,
        "optimizer": cell.optimizer.name,
        "optimizer_implementation": cell.optimizer.implementation,
        "learning_rate": cell.optimizer.lr,
        "budget": cell.budget.kind,
        "budget_value": cell.budget.value,
        "threads": cell.threads,
        "source": cell.device,
        "device": device_class(cell.device),
        "torch_version": version("torch"),
        "git_commit": git_commit(),
        "dataset_sha256": dataset_sha256,
        "dbbench_version": dbbench_version(),
    }


def method_columns(method: Method) -> dict[str, Any]:
    """Return the columns that a built method fills: how it divides the network, and where it keeps the parts."""
    return {
        "blocks": method.blocks,
        "layers_per_block": json.dumps(method.layers_per_block),
        "residency": method.residency,
        "width": method.network.width,
        "sequence_length": method.task.shape.sequence_length,
    }


def environment(resolved: Resolved) -> dict[str, Any]:
    """Return what a reader needs to judge the figures: machine, device, libraries, threads."""
    cell = resolved.cell
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name() if cell.device == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "optimizer_implementation": cell.optimizer.implementation,
    }
