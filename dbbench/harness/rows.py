"""The columns of a row that say which cell it is, the same whether the cell ended well or not."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from dbbench.harness.provenance import dbbench_version, device_class, git_commit
from dbbench.harness.resolve import Resolved


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
