"""The timeline of one step, and the waterfall from the ledger to the driver: what they show, and when there is none."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from synthetic import MIB, USUAL, build, held_of, record_of, roles_of, trace_of
from test_figures import drawn_texts

from dbbench.errors import BadInput
from dbbench.report import figure_timeline, figure_waterfall, tables
from dbbench.report.figure_style import FONT_POINTS, WIDTHS, NothingToDraw, page, save_as
from dbbench.report.figures import Figures, write_figures
from dbbench.report.run import load
from dbbench.report.summary import write_report
from dbbench.results.profile import DeviceFigures, Profile


def on_cuda(path: Path, count: int, **lost: None) -> Path:
    """A run whose cells have a device's figures; the first variant's kernels ask for less than the ledger's peak."""
    folder = build(path, USUAL[:count], seeds=1, curves=False)
    for i, variant in enumerate(USUAL[:count]):
        record = record_of(variant, 0)
        asked = record.row.peak_bytes + (i * 5 - 2) * MIB
        figures = {"device_peak_bytes": asked, "allocated_bytes": asked + MIB, "reserved_bytes": asked + 20 * MIB}
        figures |= {"nvml_process_peak_bytes": asked + 520 * MIB, "source": "cuda", "device": "cuda"}
        figures["kernel_workspace_bytes"] = asked - record.row.peak_bytes
        record.row = record.row.model_copy(update=figures | lost)
        folder.write_record(record)
    return path


def profile(**figures: int | None) -> Profile:
    sizes = roles_of(USUAL[0])
    common = {"name": "step", "source": "cuda", "device": "cuda", "torch_version": "2", "dbbench_version": "0"}
    return Profile(
        **common,
        peak_bytes=sum(sizes.values()),
        split=sizes,
        own_peaks=sizes,
        held=held_of(sizes),
        device_figures=DeviceFigures(**figures, reasons={"reserved_bytes": "the allocator is asynchronous"}),
    )


def legible(figure: Figure, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Check that no text covers another, all is on the page and large enough; return what it says."""
    texts = drawn_texts(figure, monkeypatch)
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    boxes = [(text.get_text(), Text.get_window_extent(text, renderer)) for text in texts]
    width, height = figure.get_size_inches() * figure.dpi
    assert min(text.get_fontsize() for text in texts) >= FONT_POINTS
    for words, box in boxes:
        assert box.x0 >= -0.5 and box.y0 >= -0.5 and box.x1 <= width + 0.5 and box.y1 <= height + 0.5, words
    for (words, box), (other_words, other) in combinations(boxes, 2):
        across, down = min(box.x1, other.x1) - max(box.x0, other.x0), min(box.y1, other.y1) - max(box.y0, other.y0)
        assert across <= 0.5 or down <= 0.5, f"'{words}' and '{other_words}'"
    return [words for words, _ in boxes]


@pytest.mark.parametrize("width_inches", WIDTHS.values())
@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_a_waterfall_is_legible_and_ends_at_the_process(tmp_path, count, width_inches, monkeypatch):
    """Broken if labels collide, or a step of the way is not the difference of the two figures around it."""
    run = load(on_cuda(tmp_path, count))
    with page():
        words = legible(figure_waterfall.draw(run, tables.comparison(run), width_inches), monkeypatch)
    peak = record_of(USUAL[0], 0).row.peak_bytes / MIB
    for expected in (f"{peak:,.2f}", "−2.00", "+1.00", "+19.00", "+500.00", f"{peak + 518:,.2f}"):
        assert expected in words
    for name in ("ledger peak", "+ rounding", "+ cache and fragmentation", "= process (NVML)"):
        assert name in words


def test_the_waterfall_of_a_profile(monkeypatch):
    """Broken if a stranger's step on CUDA has no waterfall, or one is drawn without a figure that it needs."""
    peak = sum(roles_of(USUAL[0]).values())
    known = {"device_peak_bytes": peak + MIB, "allocated_bytes": peak + 2 * MIB, "nvml_process_peak_bytes": peak * 9}
    with page():
        figure = figure_waterfall.draw_profile(profile(**known, reserved_bytes=peak + 3 * MIB))
        assert legible(figure, monkeypatch).count("+1.00") == 3
        with pytest.raises(NothingToDraw, match="reserved bytes: the allocator is asynchronous"):
            figure_waterfall.draw_profile(profile(**known))
        with pytest.raises(NothingToDraw, match="no figures of a device"):
            figure_waterfall.draw_profile(profile().model_copy(update={"device_figures": None}))


@pytest.mark.usefixtures("only_timeline")
def test_a_report_on_cuda_has_the_waterfall_and_one_on_cpu_does_not_speak_of_it(tmp_path):
    """Broken if a CPU report gains a line about a figure that it cannot have."""
    write_report(on_cuda(tmp_path / "cuda", 2))
    assert "![waterfall](figures/waterfall.png)" in (tmp_path / "cuda" / "summary.md").read_text()
    assert (tmp_path / "cuda" / "figures" / "waterfall.pdf").exists()
    build(tmp_path / "cpu", USUAL[:2], seeds=1)
    write_report(tmp_path / "cpu")
    assert "waterfall" not in (tmp_path / "cpu" / "summary.md").read_text()
    assert not (tmp_path / "cpu" / "figures" / "waterfall.png").exists()


@pytest.mark.usefixtures("only_timeline")
def test_a_cuda_run_without_nvml_says_why_there_is_no_waterfall(tmp_path):
    """Broken if a figure is missing from a CUDA report without a reason."""
    run = load(on_cuda(tmp_path, 2, nvml_process_peak_bytes=None))
    assert write_figures(Figures(run, tables.comparison(run)))["waterfall"] == "no variant has nvml process peak bytes"


@pytest.mark.parametrize("variant", [USUAL[0], USUAL[1], USUAL[7]])
def test_one_step_is_drawn_with_its_peak(variant, monkeypatch):
    """Broken if the peak's bytes, phase or place are not on the page, or words cover each other."""
    record = record_of(variant, 0)
    with page():
        words = legible(figure_timeline.draw_step(trace_of(record), variant.label, "aten.mm in layers.3"), monkeypatch)
        assert f"{record.row.peak_bytes / MIB:,.2f} MiB, backward\naten.mm in layers.3" in words
        assert {"phase: forward", "phase: backward", "phase: optimizer", "activations"} <= set(words)
        again = legible(figure_timeline.draw_step(trace_of(record)), monkeypatch)
        assert any("\naten.mm in head" in line for line in again), "by default what the event at the peak made"


def test_a_step_without_a_byte_is_not_drawn():
    """Broken if an empty ledger's plot ends in a traceback of the drawing library."""
    trace = trace_of(record_of(USUAL[0], 0))
    with page():
        with pytest.raises(NothingToDraw):
            figure_timeline.draw_step(trace.iloc[:0])
        with pytest.raises(NothingToDraw):
            figure_timeline.draw_step(
                trace[trace["phase"] == "forward"].iloc[:1].assign(bytes=0).assign(phase="resident")
            )


def test_a_figure_is_written_as_its_name_says(tmp_path):
    """Broken if ``plot("step.jpg")`` writes something else in silence."""
    with page():
        figure = figure_timeline.draw_step(trace_of(record_of(USUAL[0], 0)))
        save_as(figure, tmp_path / "a.png")
        save_as(figure, tmp_path / "new" / "a.pdf")
        assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
        assert (tmp_path / "new" / "a.pdf").read_bytes().startswith(b"%PDF")
        with pytest.raises(BadInput, match=r"\.png or a \.pdf or a \.svg"):
            save_as(figure, tmp_path / "a.jpg")
