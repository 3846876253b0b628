"""Figures as files and as pages: no text on text, Type 42 fonts, small, and the same bytes every time."""

from __future__ import annotations

import colorsys
import os
import re
import subprocess
import sys
import zlib
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from synthetic import USUAL, Variant, build, failed, record_of, trace_of

from dbbench.report import figure_timeline, tables
from dbbench.report.figure_learning import spread
from dbbench.report.figure_style import FONT_POINTS, WIDTHS, NothingToDraw, page
from dbbench.report.figures import FIGURES, Figures, write_figures
from dbbench.report.palette import ROLE_FILLS, variant_strokes
from dbbench.report.run import load
from dbbench.report.summary import write_report
from dbbench.results.roles import ROLES

LONG = [
    Variant(
        f"a_very_long_label_of_a_method_with_many_options_{i}_and_more", f"toy{i}", (0.8 + i / 300, 0.81), {}, 60 + i
    )
    for i in range(4)
]
TWINS = [Variant(f"twin_{i}", "toy", (0.8, 0.81), {}) for i in range(11)]
CASES = {
    "usual": {"failures": [failed(USUAL[2], 1, "timeout", "no step")]},
    "twelve_long": {"variants": [*USUAL, *LONG], "seeds": 2},
    "one": {"variants": USUAL[:1], "seeds": 1},
    "twins": {"variants": [USUAL[0], *TWINS], "seeds": 2},
    "a_variant_lost": {
        "variants": USUAL[:3],
        "seeds": 2,
        "failures": [failed(USUAL[2], seed, "out_of_memory", "") for seed in (0, 1)],
    },
    "no_timing": {"variants": USUAL[:3], "timings": False},
}


@pytest.fixture(scope="module", params=CASES)
def run(request, tmp_path_factory):
    path = tmp_path_factory.mktemp(request.param)
    build(path, **CASES[request.param])
    return load(path)


def drawn_texts(figure: Figure, monkeypatch: pytest.MonkeyPatch) -> list[Text]:
    """Return the texts that a drawing really puts on the page; a hidden tick's label is not among them."""
    found: list[Text] = []
    plain = Text.draw

    def noted(self: Text, renderer: object) -> None:
        if self.get_visible() and self.get_text().strip():
            found.append(self)
        plain(self, renderer)

    monkeypatch.setattr(Text, "draw", noted)
    assert isinstance(figure.canvas, FigureCanvasAgg)
    figure.canvas.draw()
    monkeypatch.undo()
    return found


@pytest.mark.parametrize("width_inches", WIDTHS.values())
@pytest.mark.parametrize("name", FIGURES)
def test_text_covers_no_other_stays_on_the_page_and_is_legible(run, name, width_inches, monkeypatch):
    """Seven points at a paper's column width is the least that a journal prints."""
    with page():
        figure = FIGURES[name][0](run, tables.comparison(run), width_inches)
        texts = drawn_texts(figure, monkeypatch)
        renderer = figure.canvas.get_renderer()
        boxes = [(text.get_text(), Text.get_window_extent(text, renderer)) for text in texts]
    assert min(text.get_fontsize() for text in texts) >= FONT_POINTS >= 7
    assert figure.get_size_inches()[0] == width_inches
    assert figure.get_size_inches()[1] < 9.5, "taller than a page"
    width, height = figure.get_size_inches() * figure.dpi
    for words, box in boxes:
        assert box.x0 >= -0.5 and box.y0 >= -0.5 and box.x1 <= width + 0.5 and box.y1 <= height + 0.5, words
    for (words, box), (other_words, other) in combinations(boxes, 2):
        across = min(box.x1, other.x1) - max(box.x0, other.x0)
        down = min(box.y1, other.y1) - max(box.y0, other.y0)
        assert across <= 0.5 or down <= 0.5, f"'{words}' and '{other_words}'"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    path = tmp_path_factory.mktemp("files")
    build(path)
    built = load(path)
    assert write_figures(Figures(built, tables.comparison(built))) == {}
    return path / "figures"


def streams(pdf: bytes) -> bytes:
    """The bytes of a PDF with its compressed streams opened."""
    found = [pdf]
    for match in re.finditer(rb"stream\r?\n(.*?)endstream", pdf, re.DOTALL):
        try:
            found.append(zlib.decompressobj().decompress(match.group(1)))
        except zlib.error:
            continue
    return b"\n".join(found)


FILES = [f"{name}{ending}" for name in FIGURES for ending in WIDTHS]


@pytest.mark.parametrize("name", FILES)
def test_pdf_fonts_are_embedded_as_type_42(files, name):
    """A journal refuses Type 3; Type 42 is a TrueType program embedded as FontFile2."""
    whole = streams((files / f"{name}.pdf").read_bytes())
    assert b"/FontFile2" in whole
    assert b"/CIDFontType2" in whole or b"/TrueType" in whole
    assert not re.search(rb"/Type\s*3\b|/FontFile3\b", whole)
    assert b"/CreationDate" not in whole


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("suffix", [".png", ".pdf"])
def test_files_are_small_enough_to_commit(files, name, suffix):
    assert 1_000 < (files / name).with_suffix(suffix).stat().st_size <= 300_000


@pytest.mark.slow
def test_two_processes_build_the_same_bytes(tmp_path):
    """String hashes differ between processes, the clock moves, a build may fix its date: none may show in a file."""
    code = "import sys, pathlib, dbbench.report.summary as s; s.write_report(pathlib.Path(sys.argv[1]))"
    built = []
    for name, more in (("a", {"PYTHONHASHSEED": "4321"}), ("b", {"SOURCE_DATE_EPOCH": "1", "TZ": "Asia/Tokyo"})):
        path = tmp_path / name / "run"
        build(path, variants=USUAL[:4], seeds=2, failures=[failed(USUAL[2], 1, "failed", "<script> & \\input{x}")])
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])} | more
        subprocess.run([sys.executable, "-c", code, str(path)], check=True, env=environment, timeout=300)
        built.append({str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()})
    assert built[0].keys() == built[1].keys()
    names = {f"figures/{name}{suffix}" for name in FILES for suffix in (".png", ".pdf")}
    names |= {f"tables/{name}.tex" for name in ("memory", "cost", "result", "failed", "preview")}
    names |= {"summary.md", "summary.csv", "results.csv", "results.parquet", "metrics.parquet"}
    assert names <= built[0].keys()
    for name in built[0]:
        assert built[0][name] == built[1][name], name


def test_a_figure_without_data_is_named_and_its_old_file_removed(tmp_path):
    build(tmp_path, variants=USUAL[:2], seeds=1, traces=False, curves=False)
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "timeline.png").write_bytes(b"of an older run")
    run = load(tmp_path)
    missing = write_figures(Figures(run, tables.comparison(run)))
    assert set(missing) == {"timeline", "learning"}
    assert not (tmp_path / "figures" / "timeline.png").exists()
    assert (tmp_path / "figures" / "pareto.png").exists()


def test_a_report_draws_each_figure_once_at_each_width(tmp_path, monkeypatch):
    """Broken if files and page draw each for themselves, which of a large run takes seconds."""
    drawn: list[tuple[str, float]] = []

    def counted(name, draw):
        def noted(run, table, width_inches):
            drawn.append((name, width_inches))
            return draw(run, table, width_inches)

        return noted

    for name in ("pareto", "timeline"):  # timeline has nothing to draw: that too is found out once
        monkeypatch.setitem(FIGURES, name, (counted(name, FIGURES[name][0]), ""))
    for name in FIGURES.keys() - {"pareto", "timeline"}:
        monkeypatch.delitem(FIGURES, name)
    build(tmp_path, variants=USUAL[:2], seeds=1, traces=False)
    write_report(tmp_path)
    assert sorted(drawn) == sorted((name, width) for name in ("pareto", "timeline") for width in WIDTHS.values())


def test_a_replayed_trace_rises_to_the_peak_and_its_split():
    record = record_of(USUAL[0], 0)
    step = figure_timeline.replay(trace_of(record))
    assert step.total.max() == record.row.peak_bytes
    split = dict(zip(ROLES, step.live[step.peak_event], strict=True))
    assert split == {role: getattr(record.row, f"{role}_bytes") for role in ROLES}


def test_inference_is_no_training_step():
    record = record_of(USUAL[0], 0)
    trace = trace_of(record)
    extra = trace.iloc[[0]].assign(step=9, phase="inference", bytes=10**15)
    assert figure_timeline.replay(pd.concat([trace, extra])).total.max() == record.row.peak_bytes
    with pytest.raises(NothingToDraw):
        figure_timeline.replay(extra)


def test_thinning_a_long_trace_keeps_its_peak():
    total = np.random.default_rng(0).integers(0, 1000, 100_000)
    total[76_543] = 10_000
    kept = figure_timeline._kept(total)
    assert 76_543 in kept
    assert len(kept) < 1_001


def luminance(color: str) -> float:
    """Relative luminance by Rec. 709, 0 black to 1 white: what a grey print shows."""
    rgb = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_neighbours_in_the_stack_differ_in_grey_or_hatch():
    assert tuple(ROLE_FILLS) == ROLES
    for one, two in pairwise(ROLES):
        grey = abs(luminance(ROLE_FILLS[one].color) - luminance(ROLE_FILLS[two].color))
        assert grey > 0.1 or ROLE_FILLS[one].hatch != ROLE_FILLS[two].hatch, (one, two)
    assert len({ROLE_FILLS[role] for role in ROLES}) == len(ROLES)


def test_variants_keep_their_colour_between_runs_and_differ_within_one():
    few = variant_strokes(["backprop", "diffusion_blocks_b3", "greedy"])
    many = variant_strokes(["linear", "backprop", "x", "diffusion_blocks_b3", "greedy", "checkpointing"])
    for name in few:
        assert few[name] == many[name]
    twelve = variant_strokes([f"m{i}" for i in range(12)])
    assert len({(s.color, s.marker) for s in twelve.values()}) == 12
    for stroke in many.values():
        red, green, blue = (int(stroke.color[i : i + 2], 16) / 255 for i in (1, 3, 5))
        assert colorsys.rgb_to_hls(red, green, blue)[1] < 0.75, "too light on white"


def test_spread_labels_keep_their_order_their_distance_and_the_page():
    placed = spread({"a": 0.9, "b": 0.91, "c": 0.905, "d": 0.1}, 0.06)
    assert list(placed) == ["d", "a", "c", "b"]
    heights = list(placed.values())
    assert all(two - one >= 0.06 - 1e-9 for one, two in pairwise(heights))
    assert placed["d"] == pytest.approx(0.1)
    assert np.mean([placed[x] for x in "abc"]) == pytest.approx(0.905)
    assert min(heights) >= 0 and max(heights) <= 1
