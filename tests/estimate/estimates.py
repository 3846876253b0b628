"""Estimates, measurements and calibrations made up by hand."""

from __future__ import annotations

from typing import Any

from tiny_cells import make_cell

from dbbench.results.calibration import Calibration, CalibrationCell, Measurement, Side
from dbbench.results.estimate import AllocatorFigures, Estimate
from dbbench.results.record import Record, Row
from dbbench.results.roles import ROLES

GIB = 2**30


def figures(**changes: Any) -> AllocatorFigures:
    """Return an allocator's figures of a step that fits."""
    body: dict[str, Any] = {"settings": "", "requested_bytes": 5 * GIB, "allocated_bytes": 5 * GIB}
    body |= {"reserved_bytes": 6 * GIB, "retries": 0, "out_of_memory": False}
    return AllocatorFigures(**(body | changes))


def estimate(variant: str = "backprop", updated_bytes: int = GIB, masked: int = 0, **changes: Any) -> Estimate:
    """Return an estimate of 5 GiB: 2 of parameters, 1 of gradients, 1.5 of activations, half a one of inputs."""
    sizes = dict.fromkeys(ROLES, 0) | {"parameters": 2 * GIB, "gradients": GIB, "activations": GIB * 3 // 2}
    sizes["inputs"] = GIB // 2
    row: dict[str, Any] = {
        "suite": "made-up", "task": "digits", "network": "vit", "variant": variant, "method": "backprop",
        "options_json": "{}", "seed": 0, "status": "ok", "config_hash": f"{abs(hash(variant)):016x}"[:16],
        "network_size": "tiny", "depth": 2, "batch_size": 32, "precision": "fp32", "optimizer": "adamw",
        "optimizer_implementation": "fused", "learning_rate": 1e-3, "budget": "samples", "budget_value": 320,
        "threads": 1, "device": "fake", "source": "fake", "peak_bytes": 5 * GIB, "flops_step": 10**12,
        "allocated_bytes": 5 * GIB, "reserved_bytes": 6 * GIB, "reserved_expandable_bytes": 5 * GIB,
        "host_transfer_bytes_per_step": 0, "torch_version": "2.13.0", "dbbench_version": "0.1.0",
    }  # fmt: skip
    row |= {f"{role}_bytes": size for role, size in sizes.items()}
    return Estimate(
        record=Record(row=Row(**(row | changes)), cell=make_cell(variant).model_dump(mode="json")),
        allocators=[figures()],
        updated_bytes_per_step=updated_bytes,
        masked_flops_per_step=masked,
    )


def side(peak: int, **roles: int) -> Side:
    """Return a side whose allocator has 10 bytes, 20 and 100 more than the ledger; the parameters take what is left."""
    rest = peak - sum(roles.values())
    sizes = {"parameters": rest, **roles}
    return Side(
        totals={"peak": peak, "requested": peak + 10, "allocated": peak + 20, "reserved": peak + 100},
        roles=sizes,
        ops={role: {"made_here": size - size // 4, "and_here": size // 4} for role, size in sizes.items()},
    )


def calibration(*pairs: tuple[Side | None, Measurement]) -> Calibration:
    """Return a calibration of cells ``cell_0``, ``cell_1``, … on a made-up device."""
    cells = [
        CalibrationCell(
            variant=f"cell_{i}", method="backprop", network="vit", network_size="tiny", batch_size=8, precision="fp32",
            estimated=ours, measured=theirs, bound_seconds=0.01, bound_by="arithmetic",
        )
        for i, (ours, theirs) in enumerate(pairs)
    ]  # fmt: skip
    return Calibration(
        suite="made-up", device="a device", device_model="h100-80gb", torch_version="2.13.0", cuda_version="13.0",
        dbbench_version="0.1.0", git_commit=None, seconds=12, unavailable={}, cells=cells,
    )  # fmt: skip
