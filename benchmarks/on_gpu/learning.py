"""Stage 6: learning, with whatever time is left. A cell at a time; a cell that the time ran out on begins anew."""

from __future__ import annotations

from functools import cache

from benchmarks.on_gpu.stage import Result, Setting, Stage
from dbbench.suite.cell import Cell


@cache
def _cells(setting: Setting) -> dict[str, Cell]:
    """Return the cells of `vision` at the published depth, seed by seed, then those of `language-long`."""
    from dbbench.suite.expand import expand
    from dbbench.suite.load import load_suite
    from dbbench.suite.overrides import with_settings
    from dbbench.suite.schema import Suite, check

    plan = [("vision", ["network.depth=12", "budget.value=12000"]), ("language-long", [])]
    if setting.toy:
        plan = [("smoke", [])]
    found = {}
    for name, settings in plan:
        raw, where = load_suite(name)
        suite = check(Suite, with_settings(raw, settings) if settings else raw, where)
        cells = sorted(expand(suite, setting.device, where), key=lambda cell: cell.seed)
        for cell in cells[: 2 if setting.toy else None]:
            found[f"{name} {cell.variant} seed {cell.seed}"] = cell
    return found


def _items(setting: Setting) -> list[str]:
    return list(_cells(setting))


def run(item: str, setting: Setting) -> Result:
    """Train one cell; return its row."""
    import torch

    from dbbench.harness.cell import run_cell

    chosen = _cells(setting)[item]
    torch.set_num_threads(chosen.threads)
    row = run_cell(chosen, "0" * 16, lambda progress: None).record.row
    return {"row": row.model_dump(mode="json")}


STAGE = Stage("learning", "Learning", 0.3, 600, _items, run)
