"""The ledger against the CPU allocator's own events: if one of these fails, no figure of memory can be believed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dbbench.harness.resolve import resolve_cell
from dbbench.harness.tracing import measure, memory_columns
from dbbench.results.roles import ROLES
from dbbench.suite.cell import Budget, Cell, NetworkChoice, OptimizerChoice, TaskChoice

VARIANTS: dict[str, dict[str, Any]] = {
    "backprop": {"method": "backprop"},
    "checkpointing": {"method": "checkpointing"},
    "checkpointing_sqrt": {"method": "checkpointing", "options": {"policy": "sqrt"}},
    "greedy": {"method": "greedy", "options": {"layers_per_stage": 2}},
    "blocks_3": {"method": "diffusion_blocks", "options": {"blocks": 3, "target_scale": 0.1}},
    "blocks_3_state": {"method": "diffusion_blocks", "options": {"blocks": 3, "residency": "state"}},
    "blocks_3_active": {"method": "diffusion_blocks", "options": {"blocks": 3, "residency": "active"}},
    "blocks_3_own_parts": {
        "method": "diffusion_blocks",
        "options": {"blocks": 3, "residency": "active", "shared": "per_block"},
    },
    "blocks_1": {"method": "diffusion_blocks", "options": {"blocks": 1}},
    "linear": {"method": "backprop", "network": NetworkChoice(name="linear")},
}


def vision_cell(method: str, options: dict[str, Any] | None = None, **changes: Any) -> Cell:
    """Return a cell of the default suite's network and data."""
    body: dict[str, Any] = {
        "suite": "vision",
        "variant": "v",
        "method": method,
        "options": options or {},
        "task": TaskChoice(name="fashion_mnist_10k"),
        "network": NetworkChoice(name="vit", size="tiny", depth=6),
        "optimizer": OptimizerChoice(),
        "precision": "fp32",
        "budget": Budget(kind="samples", value=640),
        "batch_size": 64,
        "seed": 0,
        "threads": 1,
        "evaluations": 1,
        "timeout_seconds": 60,
    }
    return Cell(**(body | changes))


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("name", VARIANTS)
def test_peak_equals_the_allocators_own_to_the_byte(name: str) -> None:
    """The ledger misses, or invents, an allocation that is alive at the peak."""
    spec = VARIANTS[name]
    extra = {"network": spec["network"]} if "network" in spec else {}
    resolved = resolve_cell(vision_cell(spec["method"], spec.get("options"), **extra), "test")
    measured = measure(resolved, resolved.load_task())
    columns = memory_columns(measured)
    assert columns["kernel_workspace_bytes"] == 0
    assert columns["peak_bytes"] == columns["device_peak_bytes"] > 0
    assert sum(columns[f"{role}_bytes"] for role in ROLES) == columns["peak_bytes"]
    assert sum(held.bytes for held in measured.account.held) == columns["peak_bytes"]
    assert not measured.uncounted


def test_random_states_of_checkpointing_are_booked_as_other() -> None:
    """5,056 bytes a checkpointed layer are made outside the dispatcher and would go missing."""
    resolved = resolve_cell(vision_cell("checkpointing"), "test")
    measured = measure(resolved, resolved.load_task())
    states = [held for held in measured.account.held if held.role == "other"]
    assert [held.holder for held in states] == ["random-number state"]
    assert states[0].bytes == states[0].storages * torch.get_rng_state().nbytes
    assert states[0].storages >= 6


def test_retained_bytes_name_their_holder() -> None:
    """A tensor that a method keeps for nothing would be a nameless number."""
    resolved = resolve_cell(vision_cell("greedy", {"layers_per_stage": 2}), "test")
    measured = measure(resolved, resolved.load_task())
    retained = [held for held in measured.account.held if held.role == "retained"]
    assert "local 'logits' in Greedy.step" in [held.holder for held in retained]
    assert all(held.holder for held in retained)


@pytest.mark.parametrize("precision", ["bf16", "autocast_bf16"])
def test_low_precision_books_casts_of_weights(precision: str) -> None:
    """Casts of weights would be booked as activations, or lost."""
    resolved = resolve_cell(vision_cell("backprop", precision=precision), "test")
    measured = measure(resolved, resolved.load_task())
    # kernels of half precision pack their operands on CPU: scratch inside an op, which only the allocator sees
    assert memory_columns(measured)["kernel_workspace_bytes"] >= 0
    casts = measured.account.own_peaks["weight_casts"]
    assert (casts > 0) is (precision == "autocast_bf16")
    if casts:  # matrices and biases of linear maps are cast to two bytes an element, norms stay
        assert casts <= measured.account.own_peaks["parameters"] / 2


def test_two_measurements_give_the_same_integers() -> None:
    """A figure that moves between runs cannot be gated on."""
    resolved = resolve_cell(vision_cell("diffusion_blocks", {"blocks": 2, "residency": "active"}), "test")
    first, second = (measure(resolved, resolved.load_task()) for _ in range(2))
    assert memory_columns(first) == memory_columns(second)
    assert first.flops_by_block == second.flops_by_block
    assert first.timeline.equals(second.timeline)
