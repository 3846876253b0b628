"""A report of text: ways of predicting side by side, parts of the peak, samples of any content, a table a budget."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic import USUAL, Variant, build, record_of

from dbbench.report import budgets, figures, part_tables, sample_texts, summary, tables, ways
from dbbench.report.document import markdown, markdown_section, plain
from dbbench.report.figure_pareto import draw as pareto
from dbbench.report.figure_style import page
from dbbench.report.run import Run, load
from dbbench.report.summary import write_report
from dbbench.results.parts import PARTS
from dbbench.results.record import Document, Held, MetricValue, Record, Samples
from dbbench.results.store import SUMMED_BY_ROLE, RunFolder

EVIL = "a <b>|`c`\n\n*d*  $e$ \\f{g} & h_i ~ \x00\u202e" + "x" * 300
PROMPT = "<script>|`\nROMEO"
BACKPROP, BLOCKS = USUAL[0], USUAL[3]
NGRAM = Variant("ngram_2", "ngram", (2.88, 2.88), {"order": 2}, network="counts", samples=32_768, budget="samples")
SAMPLES = replace(BLOCKS, label="blocks_equal_samples", budget="samples", samples=102_400, scores=(3.2, 3.3))
VARIANTS = (
    replace(BACKPROP, scores=(2.7, 2.8)),
    replace(BLOCKS, label="blocks", scores=(3.0, 3.1)),
    SAMPLES,
    NGRAM,
)


def text_record(variant: Variant, seed: int, unit: str = "bits") -> Record:
    record = record_of(variant, seed, metric="test_bits_per_character")
    own, common = record.row.metric_value, {"split": "test", "step": 1}
    bits = {"": own}
    if variant.method == "diffusion_blocks":
        bits |= {"first_block": own + 1, "draws_16": own - 0.3, "draws_4": own - 0.2, "draws_1": own}
    record.metrics = []
    for way, value in bits.items():
        for name, figure in (("bits_per_character", value), ("perplexity", 2**value)):
            record.metrics.append(
                MetricValue(name=name, variant=way, value=figure, unit=unit, direction="lower", **common)
            )
    for name in ("distinct_1", "distinct_2", "repetition_4"):
        made: dict[str, Any] = {"name": name, "value": 0.25, "unit": "share", "direction": "lower"}
        record.metrics += [MetricValue(variant=way, **made, **common) for way in ("greedy", "temperature_1")]
    if variant.method == "ngram":
        record.row.parameters_count = 0
    return record


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    found = build(tmp_path_factory.mktemp("run"), variants=VARIANTS, seeds=2, traces=False, curves=False)
    for variant in VARIANTS:
        for seed in range(2):
            record = text_record(variant, seed)
            found.write_record(record)
            documents = [
                Document(made_by=way, prompt=prompt, text=EVIL if way == "greedy" else "")
                for way in ("greedy", "temperature_1", "held_out")
                for prompt in (PROMPT, "second", "third")
            ]
            key = record.row.config_hash
            found.write_samples(
                Samples(config_hash=key, variant=variant.label, seed=seed, split="test", documents=documents)
            )
    return found


@pytest.fixture(scope="module")
def run(folder: RunFolder) -> Run:
    return load(folder.path)


def rows_of(section: Any, place: int = 0) -> list[list[str]]:
    """Return header and rows of a section's table, plain."""
    grid = [block for block in section.blocks if hasattr(block, "rows")][place]
    return [[plain(title) for title in grid.header], *([plain(c.words) for c in row] for row in grid.rows)]


def test_ways_stand_side_by_side_in_the_order_of_their_draws(run: Run) -> None:
    """A gap's origin is read along a row: first block, whole chain, 1, 4 and 16 draws, for n-grams too."""
    header, *rows = rows_of(ways.side_by_side(run))
    assert header[:6] == ["variant", "first block alone", "the method's own", "N = 1", "N = 4", "N = 16"]
    assert header[6:] == ["perplexity (own)", "samples seen", "equal budget"]
    assert [row[0] for row in rows] == [variant.label for variant in VARIANTS], "the order of the suite"
    by_label = {row[0]: row for row in rows}
    expected = [np.mean(VARIANTS[1].scores) + shift for shift in (1, 0, 0, -0.2, -0.3)]
    assert by_label["blocks"][1:6] == [f"{mean:.3f} ± 0.071 (n = 2)" for mean in expected]
    assert by_label["ngram_2"][1:6] == ["–", "2.880 ± 0.000 (n = 2)", "–", "–", "–"]
    assert by_label["ngram_2"][-2:] == ["32,768", "samples 102,400"]


def test_what_draws_mean_is_said_and_a_bound_is_called_one(run: Run, tmp_path: Path) -> None:
    words = markdown_section(ways.side_by_side(run))
    assert "the mean of the softmaxes" in words and "sums to one" in words
    assert "upper bound" not in words
    found = build(tmp_path, variants=VARIANTS[:1], seeds=1, traces=False, curves=False)
    found.write_record(text_record(VARIANTS[0], 0, unit="bits, an upper bound"))
    assert "evidence lower bound" in markdown_section(ways.side_by_side(load(tmp_path)))


def test_what_has_a_table_of_its_own_is_not_listed_again(run: Run) -> None:
    from dbbench.report.sections import other_metrics

    listed = {tuple(row[1:3]) for row in rows_of(other_metrics(run))[1:]}
    assert ("first_block", "test perplexity") in listed
    assert not {metric for _, metric in listed} - {"test perplexity"}


def test_each_budget_has_the_variants_that_spent_as_much(run: Run) -> None:
    """Backprop has layer updates for its budget and saw as many samples as the variant that had those."""
    table = tables.comparison(run)
    section = budgets.budget(run, table)
    updates, samples = rows_of(section, 0), rows_of(section, 1)
    assert [row[0] for row in updates[1:]] == ["backprop", "blocks", "blocks_equal_samples", "ngram_2"]
    assert [row[0] for row in samples[1:]] == ["backprop", "blocks_equal_samples", "ngram_2"]
    gap = dict(zip(samples[0], samples[2], strict=True))["difference to backprop"]
    assert gap.startswith("+0.500 (p = "), "3.25 − 2.75, with the test of two seeds"
    words = markdown_section(section)
    assert "Equal samples: 102,400" in words and "less is better" in words
    assert "Unequal: samples from" in words


def test_parts_sum_to_the_peak_and_a_record_summed_by_role_says_why_it_has_none(run: Run, tmp_path: Path) -> None:
    header, *rows = rows_of(part_tables.by_part_and_role(run))
    for label in ("backprop", "blocks"):
        mine = [row for row in rows if row[0] == label]
        sizes = [int(row[2].replace(",", "")) for row in mine]
        assert (
            sum(sizes[:-1]) == sizes[-1] == record_of(next(v for v in VARIANTS if v.label == label), 0).row.peak_bytes
        )
    assert header[:3] == ["variant", "part", "bytes"]
    found = build(tmp_path, variants=VARIANTS[:1], seeds=1, traces=False, curves=False)
    record = text_record(VARIANTS[0], 0)
    record.unavailable["held_at_peak"] = SUMMED_BY_ROLE
    found.write_record(record)
    parts, reason = load(tmp_path).configurations[0].parts
    assert parts is None and "no trace" in reason
    record.unavailable.clear()
    record.held_at_peak.append(Held(role="other", module="x", op="", bytes=1, storages=1))
    found.write_record(record)
    parts, reason = load(tmp_path).configurations[0].parts
    assert parts is None and "the peak is" in reason, "what does not sum is not shown"
    assert set(PARTS) == set(part_tables.PART_NAMES)


def test_a_text_of_any_content_is_one_line_of_a_table(run: Run) -> None:
    """Two prompts, the same for each variant; a bar, a tag or a line's end in a text would end its cell."""
    section = sample_texts.samples(run)
    words = markdown_section(section)
    grids = [markdown(block).split("\n") for block in section.blocks if hasattr(block, "rows")]
    assert len(grids) == 2 and "third" not in words
    assert all(len(grid) == 2 + 2 * len(VARIANTS) + 1 for grid in grids)
    line = next(x for x in grids[0] if x.startswith("| `blocks` | greedy"))
    assert "\\<b\\>\\|\\`c\\`↵↵\\*d\\*␣␣\\$e\\$" in line
    assert "\u202e" not in words and "\x00" not in words
    assert line.count(" | ") == 5 and line.endswith("| 0.250 |")
    assert "…" in line and "x" * 200 not in line
    assert "| `blocks` | temperature 1 | – |" in grids[0][3 + 2]


@pytest.mark.parametrize(
    ("words", "line"),
    [("a\n b", "a↵ b"), ("  ", "␣␣"), ("a  b c ", "a␣␣b c␣"), ("a\tb\r\n", "a b↵"), ("\x07", "�"), ("abcdef", "abcd…")],
)
def test_one_line_hides_no_space_and_no_end(words: str, line: str) -> None:
    """Repeated spaces that a table swallows would make a stuck model look as if it wrote nothing."""
    assert sample_texts.one_line(words, 4 if words == "abcdef" else 40) == line


def test_the_page_and_the_tables_escape_what_was_written(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """And are the same bytes when built again."""
    monkeypatch.setattr(summary, "write_figures", lambda figures: {})
    names = ("report.html", "summary.md", "tables/samples.tex", "tables/ways.tex", "tables/parts.tex")
    write_report(folder.path)
    built = {name: (folder.path / name).read_bytes() for name in names}
    page_text, tex = built["report.html"].decode(), built["tables/samples.tex"].decode()
    assert "a &lt;b&gt;|`c`↵↵" in page_text and "<b>|" not in page_text and "<script>|" not in page_text
    assert r"\textless{}b\textgreater{}\textbar{}\textasciigrave{}c" in tex and tex.isascii()
    write_report(folder.path)
    assert built == {name: (folder.path / name).read_bytes() for name in names}


def test_figures_of_cost_leave_out_what_trains_nothing_and_say_so(run: Run) -> None:
    """An n-gram's peak is of counting other batches, and it makes no FLOPs."""
    table = tables.comparison(run)
    captions = {name: caption for name, (_, caption) in figures.figures_of(table).items()}
    for name, caption in captions.items():
        assert ("ngram_2" in caption) == (name in figures.COSTS)
    with page():
        drawn = pareto(run, table)
        words = " ".join(artist.get_text() for artist in drawn.axes[0].texts)
        assert "ngram_2" not in words and "blocks" in words
        assert "lower is better" in drawn.axes[0].get_ylabel()
