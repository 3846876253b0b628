"""The parent of a run, for tests that interrupt or kill it: ``python tiny_run.py OUT VARIANT,VARIANT SEEDS REPORT``."""

from __future__ import annotations

import sys
from pathlib import Path

from tiny_cells import make_cell, run_tiny

if __name__ == "__main__":
    out, variants, seeds, report = sys.argv[1:]
    cells = [
        make_cell(variant, "toy_methods.faulty:Hangs" if variant == "hangs" else variant, seed)
        for variant in variants.split(",")
        for seed in range(int(seeds))
    ]
    status, shown = run_tiny(cells, Path(out), report=report == "report")
    print(shown)
    sys.exit(status)
