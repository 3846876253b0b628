"""``python -m dbbench``: the command line without an installed script."""

from __future__ import annotations

from dbbench.cli import app

app(prog_name="dbbench")
