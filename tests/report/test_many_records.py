"""Ten thousand records: read, reported on, and said to be too many to draw or to print, in bounded time and memory."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from many_records import METHODS, TORN, write_many

from dbbench.report import tables
from dbbench.report.run import load

ROOT = Path(__file__).parents[2]
CODE = (
    "import sys; from dbbench.cli import app\n"
    "try: app(['report', sys.argv[1]])\n"
    "except SystemExit as end: print('status', end.code)\n"
    # not ru_maxrss, which a process inherits from the one that starts it
    "print('rss', next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
)


@pytest.mark.slow
def test_ten_thousand_records_are_reported_on_in_a_minute_and_one_gibibyte(tmp_path: Path) -> None:
    """Broken if something is done for each pair of configurations, or all that a record holds is kept several times."""
    count = write_many(tmp_path)
    assert count == 10_200
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path)], env=environment, capture_output=True, text=True, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime  # others may hold the machine
    status, rss = done.stdout.splitlines()[-2:]
    assert status == "status 0"
    assert int(rss.split()[1]) < 2**20, "KiB"
    assert seconds < 60  # some 20; what is done for each pair takes many minutes
    assert len(pd.read_parquet(tmp_path / "results.parquet")) == count - TORN
    page = (tmp_path / "summary.md").read_text()
    assert page.count("truncated or not JSON") == TORN
    assert "300 of 3,400 rows" in page and "60 of 3,400 rows" in done.stdout
    assert len(pd.read_csv(tmp_path / "summary.csv")) == 3_400
    for name in ("memory_split", "pareto_one_column", "flops", "learning_one_column"):
        assert (tmp_path / "figures" / f"{name}.pdf").stat().st_size < 300_000


def test_every_point_of_a_grid_is_compared_with_backprop_at_that_point(tmp_path: Path) -> None:
    """Broken if finding the reference by key gives another point's, or none."""
    write_many(tmp_path, range(8, 24, 8))
    run = load(tmp_path)
    assert len(run.configurations) == 2 * 17 * len(METHODS)
    for configuration in run.configurations:
        reference = run.reference(configuration)
        assert reference is not None
        mine, theirs = configuration.records[0].row, reference.records[0].row
        assert (theirs.method, theirs.depth, theirs.batch_size) == ("backprop", mine.depth, mine.batch_size)
    table = tables.comparison(run)
    base = table.set_index("variant").loc["backprop.batch_size-16 [network.depth=4]"]
    least = table.set_index("variant").loc["checkpointing.batch_size-16 [network.depth=4]"]
    assert least["peak_ratio"] == pytest.approx(least["peak_bytes"] / base["peak_bytes"])
