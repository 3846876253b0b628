"""What a run's records and traces become in the gate: names, tolerances by device, seeds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from report.synthetic import USUAL, build

from dbbench.cli.app import make_plan
from dbbench.estimate.suite import merged_seeds
from dbbench.gate.cells import GROUPS, cell_name, cell_of, cells_of_run, group_of
from dbbench.gate.measure import fake_names
from dbbench.report.run import load
from dbbench.results.frames import labels
from dbbench.results.record import Record

MIB = 2**20


def test_a_suite_names_its_cells_as_its_runs_do(make_record: Callable[..., Record]) -> None:
    """Broken if a cell of a grid has one name on fake tensors and another in a run's folder."""
    cells = merged_seeds(make_plan("smoke", ["grid={network.depth: [2, 4], batch_size: [8, 16]}"], None, "cpu").cells)
    names = fake_names("smoke", [(cell.variant, cell.network.depth) for cell in cells])
    records = [
        make_record(f"{place:016x}", variant=cell.variant, depth=cell.network.depth or 1).model_copy(
            update={"cell": cell.model_dump(mode="json")}
        )
        for place, cell in enumerate(cells)
    ]
    theirs = labels(records)
    assert names == [cell_name("smoke", theirs[record.row.config_hash]) for record in records]
    assert "smoke/backprop.batch_size-8 [network.depth=2]" in names
    assert len(set(names)) == len(names)


def test_a_devices_peaks_may_differ_by_a_hundredth(make_record: Callable[..., Record]) -> None:
    """Broken if a GPU's allocator raises an alarm each night, or the FLOPs that it counts are taken for noisy."""
    sizes = {"device_peak_bytes": 80_000, "reserved_bytes": 2 * MIB, "flops_step": 10**9}
    record = make_record(source="cuda", device="NVIDIA H100", torch_version="2.13.0+cu130", **sizes)
    cell = cell_of("s/one", record, None)
    assert (cell.source, cell.torch) == ("NVIDIA H100", "2.13.0")
    tolerances = {metric: str(figure.tolerance) for metric, figure in cell.figures.items()}
    assert {tolerances[metric] for metric in ("peak_bytes", "device_peak_bytes", "reserved_bytes")} == {"1%"}
    assert tolerances["flops_step"] == "exact"
    # a hundredth of four bytes is none: a role has the hundredth of the peak
    assert tolerances["retained_bytes"] == str(round(0.01 * (record.row.peak_bytes or 0)))
    same = cell_of("s/one", make_record(source="cpu", device="cpu", **sizes), None)
    assert {str(figure.tolerance) for figure in same.figures.values()} == {"exact"}


def test_what_is_learnt_is_over_the_seeds(tmp_path: Path) -> None:
    """Broken if the baseline keeps one seed's luck, or forgets how far the seeds lie apart."""
    build(tmp_path, [USUAL[0]], curves=False)
    cells, failed, _ = cells_of_run(load(tmp_path), with_seconds=True)
    (cell,) = cells
    accuracy = cell.figures["test_accuracy"]
    assert (round(accuracy.value, 4), round(accuracy.sd, 4), accuracy.n, failed) == (0.8617, 0.004, 3, {})
    assert str(accuracy.tolerance) == "p<0.05,1%"
    assert cell.figures["seconds_per_step"].value == 0.1
    assert {group_of(metric) for metric in cell.figures} <= set(GROUPS)
