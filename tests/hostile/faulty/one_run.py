"""``dbbench run`` of a suite without its figures, which take longer than the training: ``one_run.py SUITE OUT``."""

from __future__ import annotations

import sys
from unittest import mock

from dbbench.cli import app
from dbbench.results.store import RunFolder

if __name__ == "__main__":
    suite, out = sys.argv[1:]
    with mock.patch("dbbench.report.summary.write_report", lambda folder, _: RunFolder(folder).write_tables()):
        app(["run", suite, "--out", out, "--no-timing", "--jobs", "1"], prog_name="dbbench")
