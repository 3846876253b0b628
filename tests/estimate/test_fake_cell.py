"""One cell's estimate: the figures of the measuring pass, and what is made of its trace besides."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import Any

import pytest
from tiny_cells import make_cell

from dbbench.estimate.fake_cell import estimate_cell, estimate_or_failure
from dbbench.harness.cell import run_cell
from dbbench.harness.resolve import resolve_cell
from dbbench.harness.tracing import Measured, ledger_pass, memory_columns
from dbbench.measure.allocator import replay
from dbbench.measure.allocator_settings import AllocatorSettings
from dbbench.results.estimate import Estimate
from dbbench.results.roles import ROLES
from dbbench.suite.cell import Budget, Cell, NetworkChoice, OptimizerChoice, TaskChoice

CELLS = {
    "backprop": make_cell("backprop"),
    "blocks": make_cell("blocks", "diffusion_blocks", options={"blocks": 2, "residency": "active"}),
    "greedy": make_cell("greedy", "greedy", options={"stages": 2}),
}


@cache
def measured(name: str) -> Measured:
    resolved = resolve_cell(CELLS[name], "test")
    return ledger_pass(resolved, resolved.load_task())


@cache
def estimated(name: str) -> Estimate:
    return estimate_cell(CELLS[name], "test", (AllocatorSettings(), AllocatorSettings(max_split_size_mb=20)))


@pytest.mark.parametrize("name", CELLS)
def test_an_estimate_has_the_figures_of_the_pass_on_real_tensors(name: str) -> None:
    """An estimate would be of something else than what a run measures."""
    row, truth = estimated(name).record.row.model_dump(), memory_columns(measured(name))
    unlike = {key for key, value in truth.items() if value is not None and row[key] != value}
    assert not unlike
    assert (row["source"], row["device"], row["status"]) == ("fake", "fake", "ok")
    assert estimated(name).record.held_at_peak == measured(name).account.held


@pytest.mark.parametrize("implementation", ["foreach", "single"])
def test_an_optimizer_that_reads_its_count_of_steps_is_estimated_off_the_device_too(implementation: str) -> None:
    """The count is a tensor that is parked with the rest: where its value is lost, the next update cannot be taken.

    Every allocation and free is held against those of the pass on real tensors.
    """
    cell = make_cell(
        "blocks",
        "diffusion_blocks",
        options={"blocks": 2, "residency": "active"},
        task=TaskChoice.model_validate({"name": "images", "image_size": 8, "classes": 10}),
        network=NetworkChoice(name="vit", size="micro", depth=2, patch=4),
        optimizer=OptimizerChoice(implementation=implementation),
        batch_size=4,
    )
    resolved = resolve_cell(cell, "test")
    real, fake = (ledger_pass(resolved, resolved.load_task(), fake=fake) for fake in (False, True))
    assert fake.trace.event_bytes == real.trace.event_bytes
    assert memory_columns(fake) == memory_columns(real)
    assert fake.account.held == real.account.held


def test_the_simulated_allocator_is_in_the_row_and_answers_in_the_order_asked() -> None:
    """A fake row would lack what the device reserves, or a search would read one memory's answer for another's."""
    trace, row = measured("blocks").trace, estimated("blocks").record.row
    default, unsplit = replay(trace), replay(trace, AllocatorSettings(max_split_size_mb=20))
    assert (row.allocated_bytes, row.reserved_bytes) == (default.allocated_bytes, default.reserved_bytes)
    assert row.reserved_expandable_bytes == replay(trace, AllocatorSettings(expandable_segments=True)).reserved_bytes
    asked = [(one.settings, one.reserved_bytes) for one in estimated("blocks").allocators]
    assert asked == [("", default.reserved_bytes), ("max_split_size_mb:20", unsplit.reserved_bytes)]


@pytest.mark.parametrize("name", CELLS)
def test_own_peaks_within_the_layers_are_those_of_the_timelines_rows(name: str) -> None:
    """A claim on what grows with depth would count the embedding, or leave layers out; the table is summed by hand."""
    expected = dict.fromkeys(ROLES, 0)
    frame = measured(name).timeline
    frame = frame[frame["module"].astype(str).str.startswith(("layers.", "network.layers."))]
    for _, window in frame.groupby(["step", "block"], sort=False):
        for role in ROLES:
            sizes = window.loc[window["role"] == role, "bytes"]
            resident = window.loc[(window["role"] == role) & (window["phase"] == "resident"), "bytes"].sum()
            later = sizes[window.loc[sizes.index, "phase"] != "resident"].cumsum()
            expected[role] = max([expected[role], resident, *(resident + later)])
    assert estimated(name).layers_own_peaks == expected
    assert 0 < expected["parameters"] < measured(name).account.own_peaks["parameters"]


def test_updated_bytes_are_those_of_the_parameters_that_a_step_may_change() -> None:
    """The bound on a step's time would count bytes that no optimizer reads; every parameter here gets a gradient."""
    for name in ("backprop", "greedy"):
        cell = CELLS[name]
        resolved = resolve_cell(cell, "test")
        method = resolved.build(resolved.load_task())
        sizes = {n: p.nbytes for n, p in method.model.named_parameters()}
        if name == "backprop":
            blocks = [sum(sizes.values())]
        else:
            blocks = [sum(sizes[n] for n, _ in method._trained(stage)) for stage in range(2)]  # type: ignore[attr-defined]
        assert estimated(name).updated_bytes_per_step == sum(blocks) // len(blocks)


def _runs_columns(cell: Cell) -> dict[str, Any]:
    row = run_cell(cell, "0" * 16, lambda progress: None).record.row.model_dump()
    names = (
        "flops_step",
        "flops_forward",
        "flops_backward",
        "flops_train_total",
        "blocks",
        "layers_per_block",
        "width",
    )
    return {name: row[name] for name in (*names, "residency", "parameters_count")}


@pytest.mark.parametrize("name", ["backprop", "greedy"])
def test_flops_of_a_training_are_those_of_the_run(name: str) -> None:
    """A step's FLOPs, or a training's, would be another number before the run than after it."""
    truth = _runs_columns(CELLS[name])
    assert {key: estimated(name).record.row.model_dump()[key] for key in truth} == truth


def test_blocks_that_take_turns_are_weighted_equally() -> None:
    """A mean over two blocks of unlike cost would lean to one of them; the total would not be the budget's."""
    by_block = {block: sum(flops.values()) for block, flops in measured("blocks").flops_by_block.items()}
    row = estimated("blocks").record.row
    assert row.flops_step == round(sum(by_block.values()) / 2)
    assert row.flops_train_total == 10 * sum(by_block.values()) // 2  # 320 samples in batches of 32


def test_transfers_are_those_of_a_long_run() -> None:
    """What residency moves would be counted at every step, though a block often follows itself."""
    cell = CELLS["blocks"].model_copy(update={"budget": Budget(kind="samples", value=32 * 200)})
    resolved = resolve_cell(cell, "test")
    task = resolved.load_task()
    method = resolved.build(task)
    blocks = [method.plan(step, 0.5) for step in range(4096)]
    changes = sum(a != b for a, b in pairwise(blocks)) / 4095
    # a change parks one block's parameters and moments and fetches another's, here of the same size
    owned = sum(p.nbytes for n, p in method.model.named_parameters() if n.startswith("layers.0."))
    counters = 4 * sum(n.startswith("layers.0.") for n, _ in method.model.named_parameters())
    assert estimated("blocks").record.row.host_transfer_bytes_per_step == round(changes * 2 * (3 * owned + counters))


def test_a_budget_in_seconds_has_no_total_and_says_so() -> None:
    """A total of FLOPs would be invented for a training of unknown length."""
    cell = CELLS["backprop"].model_copy(update={"budget": Budget(kind="seconds", value=5)})
    record = estimate_cell(cell, "test").record
    assert record.row.flops_train_total is None
    assert "no number of steps" in record.unavailable["flops_train_total"]
    assert {"metric_value", "train_seconds", "energy_joules", "nvml_process_peak_bytes"} <= record.unavailable.keys()


def test_a_task_without_its_data_fails_alone() -> None:
    """One missing data set would end the estimates of every other cell."""
    cell = CELLS["backprop"].model_copy(update={"task": TaskChoice(name="cifar10", folder="nowhere")})  # type: ignore[call-arg]
    row = estimate_or_failure(cell, "test").record.row
    assert row.status == "failed"
    assert "nowhere" in str(row.error)
