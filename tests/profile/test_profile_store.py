"""A profile's folder: what is written reads back, and what is not a profile is one line."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from pydantic import ValidationError
from toy_profiles import frame_of, profile_of, transformer

from dbbench.errors import BadInput
from dbbench.results.profile import DeviceFigures, StepFigures, read_profile, write_profile
from dbbench.results.record import Held

FRAME = frame_of(*transformer(2))
PROFILE = profile_of(FRAME)


def test_a_profile_reads_back_equal(tmp_path: Path) -> None:
    """Broken if a figure changes on its way to disk and back."""
    figures = DeviceFigures(device_peak_bytes=2**40, reasons={"reserved_bytes": "no CUDA device"})
    profile = PROFILE.model_copy(
        update={"device_figures": figures, "name": "naïve ✓ | <b>", "seconds_per_step": [0.1 + 0.2]}
    )
    write_profile(tmp_path / "new" / "folder", profile, FRAME)
    read, frame = read_profile(tmp_path / "new" / "folder")
    assert read == profile
    assert frame.astype(str).to_dict("list") == FRAME.astype(str).to_dict("list")
    assert {path.name for path in (tmp_path / "new" / "folder").iterdir()} == {"profile.json", "trace.parquet"}


def test_kernel_workspace_is_what_the_device_has_beyond_the_ledger() -> None:
    """Broken if device peak = ledger peak + kernel workspace does not hold, or an unknown figure becomes a zero."""
    figures = DeviceFigures(device_peak_bytes=PROFILE.peak_bytes - 512)
    assert PROFILE.model_copy(update={"device_figures": figures}).kernel_workspace_bytes == -512
    assert PROFILE.kernel_workspace_bytes is None
    assert PROFILE.model_copy(update={"device_figures": DeviceFigures()}).kernel_workspace_bytes is None


def test_flops_of_several_steps_are_their_mean() -> None:
    """Broken if a step that lacks a phase is left out of that phase's mean."""
    steps = [
        StepFigures(step=i, peak_bytes=1, flops=f)
        for i, f in enumerate(({"backward": 4, "forward": 2}, {"forward": 4}))
    ]
    profile = PROFILE.model_copy(update={"steps": steps})
    assert list(profile.flops_per_step.items()) == [("forward", 3), ("backward", 2)]


@pytest.mark.parametrize("what", ["split", "held", "role", "unknown role"])
def test_figures_that_do_not_sum_to_the_peak_are_refused(what: str) -> None:
    """Broken if a table can be shown whose lines do not sum to its peak."""
    raw = PROFILE.model_dump()
    if what == "split":
        raw["split"]["activations"] += 1
    elif what == "held":
        raw["held"][0]["bytes"] -= 1
    elif what == "role":  # the sum is right, two roles are not
        raw["held"][0]["role"] = "other"
    else:
        raw["split"]["scratch"] = raw["split"].pop("temporaries")
    with pytest.raises(ValidationError):
        type(PROFILE).model_validate(raw)


def spoil(folder: Path, how: str) -> None:
    path, trace = folder / "profile.json", folder / "trace.parquet"
    raw = json.loads(path.read_text())
    if how == "truncated":
        path.write_text(path.read_text()[:200])
    elif how == "foreign":
        path.write_text('{"name": "my-package", "version": "1.0"}')
    elif how == "a list":
        path.write_text("[1, 2]")
    elif how == "newer":
        path.write_text(json.dumps(raw | {"profile_version": 2, "colour": "red"}))
    elif how == "edited":
        raw["peak_bytes"] += 1
        path.write_text(json.dumps(raw))
    elif how == "no profile":
        path.unlink()
    elif how == "no trace":
        trace.unlink()
    elif how == "torn trace":
        trace.write_bytes(trace.read_bytes()[:-40])
    elif how == "another's trace":
        other = frame_of(*transformer(3))
        write_profile(folder / "other", profile_of(other), other)
        trace.write_bytes((folder / "other" / "trace.parquet").read_bytes())


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("truncated", "truncated or not JSON"),
        ("foreign", "no profile of dbbench"),
        ("a list", "no profile of dbbench"),
        ("newer", "profile version 2 is newer than the 1"),
        ("edited", "edited by hand"),
        ("no profile", "no such file"),
        ("no trace", "missing beside its profile"),
        ("torn trace", "torn or no parquet"),
        ("another's trace", "not of the same step"),
    ],
)
def test_what_is_no_profile_is_one_line_that_says_why(tmp_path: Path, how: str, said: str) -> None:
    """Broken if a damaged folder ends in a traceback, or is taken for what it is not."""
    write_profile(tmp_path, PROFILE, FRAME)
    spoil(tmp_path, how)
    with pytest.raises(BadInput, match=said) as error:
        read_profile(tmp_path)
    assert "\n" not in str(error.value)


def test_a_profile_of_nothing_is_a_profile(tmp_path: Path) -> None:
    """Broken if a ledger that was closed by an exception before its first op cannot be saved and read."""
    nothing = dict.fromkeys(PROFILE.split, 0)
    profile = PROFILE.model_copy(
        update={"held": [], "split": nothing, "own_peaks": nothing, "peak_bytes": 0, "peak_step": None}
    )
    write_profile(tmp_path, profile, FRAME.iloc[:0])
    assert read_profile(tmp_path)[0] == profile


def test_holdings_of_a_role_that_nobody_knows_are_refused() -> None:
    """Broken if bytes can be booked on a role that no table shows."""
    raw = PROFILE.model_dump()
    raw["held"].append(asdict(Held(role="scratch", module="", op="", bytes=7, storages=1)))
    with pytest.raises(ValidationError, match="scratch"):
        type(PROFILE).model_validate(raw)


def test_reading_and_showing_a_profile_imports_no_torch() -> None:
    """Broken if a profile from a GPU machine cannot be read where torch is not installed."""
    code = (
        "import sys; import dbbench.results.profile, dbbench.profile.table, dbbench.profile.compare, "
        "dbbench.report.figure_waterfall; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "False"
