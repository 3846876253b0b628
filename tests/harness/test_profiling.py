"""The profiler trace that ``--trace`` leaves: one file a variant, with what its readers look for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_cells import make_cell

from dbbench.harness.profiling import profile_cell


def test_trace_is_the_chrome_format_that_perfetto_reads(tmp_path: Path) -> None:
    """Perfetto would open an empty page, or one without steps and memory."""
    cell = make_cell("blocks", "diffusion_blocks", options={"blocks": 2})
    profile_cell(cell, tmp_path)
    (path,) = tmp_path.iterdir()
    assert path.name.startswith("blocks.") and path.name.endswith(".pt.trace.json")
    events = json.loads(path.read_text())["traceEvents"]
    names = [event.get("name", "") for event in events]
    steps = {e["name"] for e in events if e.get("ph") == "X" and e.get("name", "").startswith("ProfilerStep#")}
    assert len(steps) == 3  # a thread that was there before repeats them
    assert "aten::addmm" in names
    memory = [event["args"] for event in events if event.get("name") == "[memory]"]
    assert {"Bytes", "Total Allocated"} <= set(memory[0])


@pytest.mark.trace
def test_torch_tb_profiler_lists_its_four_views(tmp_path: Path) -> None:
    """TensorBoard's profiler page would miss a view."""
    loader = pytest.importorskip("torch_tb_profiler.profiler.loader")
    cache = pytest.importorskip("torch_tb_profiler.io.cache").Cache()
    for variant, method in (("backprop", "backprop"), ("greedy", "greedy")):
        profile_cell(make_cell(variant, method), tmp_path / variant)
        run = loader.RunLoader(variant, str(tmp_path / variant), cache).load()
        (profile,) = run.profiles.values()
        assert {view.display_name for view in profile.views} >= {"Overview", "Operator", "Trace", "Memory"}
