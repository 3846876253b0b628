"""The comparison table: its figures against their own arithmetic, failures in sight, names that break no table."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from synthetic import USUAL, build, failed, record_of, timing_of

from dbbench.report import tables, text
from dbbench.report.document import markdown
from dbbench.report.run import load
from dbbench.results.roles import ROLES
from dbbench.results.store import to_csv

BY_LABEL = {variant.label: variant for variant in USUAL}


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    """A run of eight variants and three seeds in which one cell of greedy timed out."""
    path = tmp_path_factory.mktemp("run")
    build(path, failures=[failed(BY_LABEL["greedy"], 1, "timeout", "no step in 600 s | see *log* <b>")])
    return load(path)


@pytest.fixture(scope="module")
def table(usual):
    return tables.comparison(usual)


def row(table, variant):
    return table[(table["variant"] == variant) & (table["status"] == "ok")].iloc[0]


def test_the_roles_of_every_finished_row_sum_to_its_peak(table):
    finished = table[table["status"] == "ok"]
    assert len(finished) == len(USUAL)
    assert (finished[[f"{role}_bytes" for role in ROLES]].sum(axis=1) == finished["peak_bytes"]).all()


def test_metric_is_mean_and_sample_sd_over_the_seeds_that_finished(table):
    for variant in USUAL:
        scores = list(variant.scores)
        if variant.label == "greedy":
            del scores[1]
        found = row(table, variant.label)
        assert found["metric_mean"] == pytest.approx(np.mean(scores))
        assert found["metric_sd"] == pytest.approx(np.std(scores, ddof=1))
        assert found["metric_n"] == len(scores)


def test_ratios_are_to_backprop_on_the_same_network(table):
    base = record_of(BY_LABEL["backprop"], 0).row
    mine = record_of(BY_LABEL["diffusion_blocks_b3_active"], 0).row
    found = row(table, "diffusion_blocks_b3_active")
    assert found["peak_ratio"] == pytest.approx(mine.peak_bytes / base.peak_bytes)
    assert found["flops_train_total_ratio"] == pytest.approx(mine.flops_train_total / base.flops_train_total)
    assert found["speed_ratio"] == pytest.approx(0.1 / 0.052)
    linear = row(table, "linear")
    ratios = ["peak_ratio", "flops_step_ratio", "flops_train_total_ratio", "speed_ratio"]
    assert linear[ratios].isna().all(), "another network's bytes are no saving of a method"


def test_a_run_of_two_networks_compares_each_with_its_own_backprop(tmp_path):
    """Only the first network's methods would have a ratio."""
    pairs = [
        dataclasses.replace(BY_LABEL[label], label=f"{network}_{label}", network=network)
        for network in ("dit", "llama")
        for label in ("backprop", "checkpointing")
    ]
    build(tmp_path, variants=pairs, seeds=1, traces=False, curves=False, timings=False)
    ratios = tables.comparison(load(tmp_path)).set_index("variant")["peak_ratio"]
    assert ratios["dit_backprop"] == ratios["llama_backprop"] == 1
    assert ratios["llama_checkpointing"] == ratios["dit_checkpointing"] < 1


def test_a_split_and_its_peak_come_from_one_cell_when_seeds_differ(tmp_path):
    folder = build(tmp_path, variants=USUAL[:1], seeds=1)
    other = record_of(USUAL[0], 1)
    more = {"peak_bytes": other.row.peak_bytes + 7, "other_bytes": other.row.other_bytes + 7}
    folder.write_record(record_of(USUAL[0], 1, **more))
    found = tables.comparison(load(tmp_path)).iloc[0]
    assert found["peak_bytes"] == other.row.peak_bytes + 7
    assert found["other_bytes"] == other.row.other_bytes + 7
    assert found["peak_spread_bytes"] == 7


def test_a_failed_cell_is_a_row_with_its_status_error_and_log(table):
    found = table[table["status"] == "timeout"]
    assert found["variant"].tolist() == ["greedy"]
    assert found["seeds"].tolist() == ["1"]
    assert found["error"].iloc[0] == "no step in 600 s | see *log* <b>"
    assert found["log"].iloc[0].startswith("logs/")
    assert found["peak_bytes"].isna().all()
    assert "no step in 600 s \\| see \\*log\\* \\<b\\>" in markdown(tables.failed(table))


def test_summary_csv_reads_back_to_the_same_figures(table):
    """An empty text and a missing one are both an empty field; of figures, nothing may change."""
    table = table.replace({"uncounted_ops": {"": None}})
    kinds = {name: str(table[name].dtype) for name in table.columns}
    again = pd.read_csv(io.BytesIO(to_csv(table)), dtype=kinds)
    for name in table.columns:
        assert again[name].isna().tolist() == table[name].isna().tolist(), name
        assert again[name].dropna().tolist() == table[name].dropna().tolist(), name


def test_every_markdown_row_has_as_many_cells_as_its_header(table):
    for block in (tables.memory(table)[0], tables.cost(table), tables.failed(table)):
        lines = [line for line in markdown(block).split("\n") if line.startswith("|")]
        cells = {line.replace("\\|", "").count("|") for line in lines}
        assert len(cells) == 1


def test_the_budget_table_names_what_is_equal_and_shows_the_other_three(table):
    assert tables.budget_cells(row(table, "diffusion_blocks_b3_all"))[:4] == [
        "layer updates 4,800",
        "4,800",
        "307,200",
        "2.88 T",
    ]
    assert tables.budget_cells(row(table, "diffusion_blocks_b3_equal_samples"))[0] == "samples 102,400"


@pytest.mark.parametrize("width", [80, 100, 160])
def test_the_terminal_shows_every_variant_and_the_failure(table, width):
    console = Console(width=width, file=io.StringIO(), record=True)
    for grid in tables.rich_tables(table):
        console.print(grid)
    shown = console.export_text()
    assert "timeout" in shown
    assert "133.00" in shown
    assert max(len(line) for line in shown.splitlines()) <= width
    assert "see *log* <b>" in shown or width < 100


def test_a_small_but_real_figure_is_not_printed_as_zero():
    assert text.mib(5056) == "<0.01"
    assert text.mib(0) == "0.00"
    assert text.mib(None) == text.MISSING


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a|b", "`a\\|b`"),
        ("tick`tick", "``tick`tick``"),
        ("two\nlines", "`two lines`"),
        ("`", "`` ` ``"),
        ("red\x1b[31m", "`red[31m`"),
    ],
)
def test_names_cannot_break_a_table(name, shown):
    assert text.code(name) == shown


def test_a_variant_of_odd_name_keeps_its_row(tmp_path):
    odd = dataclasses.replace(USUAL[1], label="x|y *z* [link](u) $a$")
    build(tmp_path, variants=[USUAL[0], odd], seeds=2)
    shown = markdown(tables.cost(tables.comparison(load(tmp_path))))
    line = next(line for line in shown.split("\n") if "link" in line)
    assert line.startswith("| `x\\|y *z* [link](u) $a$` |")


def test_rounds_of_the_timing_pass_are_counted(table):
    assert row(table, "greedy")["speed_rounds"] == len(timing_of(USUAL[0]).seconds_per_step)


def test_every_column_of_the_terminals_memory_table_is_the_role_that_it_names(table):
    """A role that is added before the others shifts every figure under another's name."""
    cells = tables._memory_cells(row(table, "backprop"))
    header = tables._MEMORY_HEADER
    shown = dict(zip(header[2:], cells[2:], strict=False))
    for role, name in tables.MAIN_ROLES.items():
        assert shown[name] == text.mib(row(table, "backprop")[f"{role}_bytes"]), name
    named = sum(row(table, "backprop")[f"{role}_bytes"] for role in tables.MAIN_ROLES)
    assert shown["rest"] == text.mib(row(table, "backprop")["peak_bytes"] - named)
    assert list(tables.MAIN_ROLES) == ["parameters", "gradients", "optimizer", "activations"]


def test_the_first_table_has_seven_columns_and_what_a_reader_looks_for(table):
    first = tables.rich_tables(table)[0]
    assert len(first.columns) == 7
    assert [str(column.header) for column in first.columns][:3] == ["variant", "peak MiB", "× bp"]


def test_roles_of_a_few_bytes_share_a_column_and_the_columns_still_sum_to_the_peak(table):
    """Five columns of zeros stand between a reader and the split."""
    small = table.copy()
    for role, size in (("buffers", 40), ("retained", 60), ("other", 50)):
        small[f"{role}_bytes"] = size
        small["activations_bytes"] = small["activations_bytes"] - size + table[f"{role}_bytes"]
    grid, *notes = tables.memory(small)
    header = list(map(str, grid.header))
    assert "small roles" in header
    assert not {"buffers", "retained", "other"} & set(header)
    assert any("Small roles, nowhere more than 0.5 % of a peak: buffers" in str(note) for note in notes)
    inputs = table.copy()
    inputs["inputs_bytes"] = table["peak_bytes"] // 10
    assert "inputs" in list(map(str, tables.memory(inputs)[0].header)), "what counts somewhere has a column"
