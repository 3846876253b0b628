"""The folder of a profile: what `dbbench.Ledger.save` and ``dbbench profile --out`` leave, to read and to compare."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pandas as pd

from dbbench.profile.table import MemoryTable
from dbbench.report.figure_style import NothingToDraw, page, save
from dbbench.report.figure_timeline import draw_step
from dbbench.results.profile import Profile, write_profile
from dbbench.results.store import write_atomically

SUMMARY_ROWS = 40


def save_profile(folder: Path, profile: Profile, frame: pd.DataFrame) -> None:
    """Write ``summary.md``, ``step.png``, ``step.pdf``, then what `read_profile` reads back, into ``folder``."""
    write_atomically(folder / "summary.md", MemoryTable(profile, SUMMARY_ROWS).markdown().encode())
    for suffix in (".png", ".pdf"):  # an older drawing would be of another step
        (folder / "step").with_suffix(suffix).unlink(missing_ok=True)
    with page(), suppress(NothingToDraw):  # a step may have failed before its first allocation
        save(draw_step(frame, profile.name), folder / "step")
    write_profile(folder, profile, frame)
