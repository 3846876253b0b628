"""The command line of `benchmarks.on_gpu`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.on_gpu.report import write_report
from benchmarks.on_gpu.runner import Run
from benchmarks.on_gpu.stage import Setting
from benchmarks.on_gpu.stages import NAMES


def main() -> int:
    """Run the command line; return the exit status: 2 for a mistake in it."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.on_gpu",
        description="Settle what only a GPU can settle. The same folder again goes on where it ended.",
    )
    parser.add_argument("--minutes", type=float, default=8.0, help="stop after so long (default 8)")
    parser.add_argument("--out", type=Path, default=Path("runs/on_gpu"), help="where results go (runs/on_gpu)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: the same at toy sizes")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="STAGE", help=", ".join(NAMES))
    parser.add_argument("--report-only", action="store_true", help="write the report of a folder again; run nothing")
    given = parser.parse_args()
    if not 0 < given.minutes <= 24 * 60:
        parser.error(f"--minutes must be more than 0 and at most 1440, not {given.minutes:g}")
    if given.out.exists() and not given.out.is_dir():
        parser.error(f"--out {given.out} is a file, not a folder")
    setting = Setting(given.device, given.out.absolute())
    refusal = None if given.report_only else _refusal(setting)
    if refusal:
        parser.error(refusal)
    if not given.report_only:
        Run(setting, 60 * given.minutes, tuple(given.only), _say, lambda: write_report(setting)).go()
    write_report(setting)
    _say(f"written: {setting.out / 'on_gpu.md'}")
    return 0


def _refusal(setting: Setting) -> str | None:
    """Say why this folder or machine will not do, and note which device the folder is of."""
    import torch

    from dbbench.harness.provenance import device_class

    if setting.device == "cuda" and not torch.cuda.is_available():
        return f"torch {torch.__version__} sees no CUDA device here; --device cpu runs the stages at toy sizes"
    here = f"{device_class(setting.device)}, torch {torch.__version__}"
    mark = setting.out / "stages" / "device.txt"
    if mark.exists() and (then := mark.read_text().strip()) != here:
        return f"--out {setting.out} holds results of {then}; this is {here}: give another folder"
    if not mark.exists() and setting.out.exists() and any(setting.out.iterdir()):
        return f"--out {setting.out} holds other things; give a new or an empty folder"
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.write_text(here + "\n")
    return None


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
