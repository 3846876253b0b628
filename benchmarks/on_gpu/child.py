"""A stage's process: does the items that are left, one after another, and notes each in the stage's log."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from benchmarks.on_gpu.log import Log, note
from benchmarks.on_gpu.stage import Setting
from benchmarks.on_gpu.stages import stage
from dbbench.foreign import in_words
from dbbench.processes import die_with_parent


def do(name: str, setting: Setting, until: float) -> None:
    """Do what is left of the stage; begin nothing once the clock is past ``until``."""
    chosen, path = stage(name), setting.log(name)
    for item in Log.read(path).left(chosen.items(setting)):
        if time.time() >= until:
            return
        note(path, "begin", item, at=time.time())
        began = time.monotonic()
        try:
            end = {"result": chosen.run(item, setting)}
        except Exception as error:
            end = {"error": in_words(error)}
        note(path, "end", item, seconds=round(time.monotonic() - began, 3), **end)


def main() -> None:
    """``python -m benchmarks.on_gpu.child STAGE DEVICE FOLDER UNTIL``."""
    die_with_parent()
    name, device, out, until = sys.argv[1:]
    setting = Setting("cuda" if device == "cuda" else "cpu", Path(out))
    do(name, setting, float(until))
    sys.stdout.flush()
    os._exit(0)  # a thread or a library that does not let go must not keep the next stage waiting


if __name__ == "__main__":
    main()
