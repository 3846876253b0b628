"""The folder of a profile: what `dbbench.Ledger.save` and ``dbbench profile --out`` leave, to read and to compare."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pandas as pd

from dbbench.files import write_atomically
from dbbench.profile.table import MemoryTable
from dbbench.report.figure_style import NothingToDraw, page, save
from dbbench.report.figure_timeline import draw_step
from dbbench.report.figure_waterfall import draw_profile
from dbbench.results.profile import Profile, write_profile

SUMMARY_ROWS = 40


def save_profile(folder: Path, profile: Profile, frame: pd.DataFrame) -> None:
    """Write ``summary.md``, the figures ``step`` and ``waterfall`` (PNG and PDF), then what `read_profile` reads back.

    A figure without data is left out: the waterfall needs every figure of the device's own account.
    """
    write_atomically(folder / "summary.md", MemoryTable(profile, SUMMARY_ROWS).markdown().encode())
    figures = {"step": lambda: draw_step(frame, profile.name), "waterfall": lambda: draw_profile(profile)}
    for name, draw in figures.items():
        for suffix in (".png", ".pdf"):  # an older drawing would be of another step
            (folder / name).with_suffix(suffix).unlink(missing_ok=True)
        with page(), suppress(NothingToDraw):  # a step may have failed before its first allocation
            save(draw(), folder / name)
    write_profile(folder, profile, frame)
