"""LaTeX tables: what is bold and why, and that a name is only ever a name."""

from __future__ import annotations

import re
import shutil
import subprocess
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import USUAL, Variant, build, failed

from dbbench.report import latex, tables
from dbbench.report.run import load
from dbbench.report.summary import summary_markdown

APART = (
    Variant("backprop", "backprop", (0.861, 0.858, 0.866), {}),
    Variant("better", "toy", (0.951, 0.958, 0.956), {}, 60.0, flops=(10**9, 10**9, 0)),
    Variant("worse", "toy", (0.701, 0.708, 0.706), {}, 80.0, flops=(10**9, 10**9, 0)),
)


def fragments(path: Path, variants: Any, **options: Any) -> dict[str, str]:
    """Build a run and return its tables by name."""
    build(path, variants=variants, **({"traces": False, "curves": False} | options))
    run = load(path)
    latex.write_tables(path, run, tables.comparison(run))
    return {file.stem: file.read_text(encoding="ascii") for file in (path / "tables").iterdir()}


def bold(fragment: str) -> list[tuple[str, str]]:
    """The bold cells of a fragment: (label, cell)."""
    rows = [line.split(" & ") for line in fragment.splitlines() if " & " in line]
    return [(row[0], cell) for row in rows for cell in re.findall(r"\\textbf\{([^}]*)\}", " & ".join(row))]


def test_a_metric_is_bold_where_a_test_tells_it_from_every_other(tmp_path: Path) -> None:
    """Broken if the best is not marked, or the note does not name the test and its level."""
    found = fragments(tmp_path, APART)
    assert bold(found["result"]) == [("better", "0.955"), ("better", "73.00")]
    assert "Welch's t-test over seeds" in found["result"] and r"5\,\% level (2 tests" in found["result"]
    assert r"\textbf{0.955} $\pm$ 0.004 & 3 &" in found["result"]


def test_a_lower_metric_may_be_the_better_one(tmp_path: Path) -> None:
    build(tmp_path, variants=APART, traces=False, curves=False)
    run = load(tmp_path)
    table = tables.comparison(run)
    table["metric_direction"] = "lower"
    assert latex.told_best(run, table)[0] == {"worse"}


@pytest.mark.parametrize(
    ("variants", "seeds", "why"),
    [
        (APART, 1, "backprop has one seed|better has one seed"),
        ([*APART, replace(APART[1], label="near", scores=(0.952, 0.957, 0.955))], 3, "is not told from near"),
        ([*APART, replace(APART[1], label="twin")], 3, "is not told from twin"),
        (APART[:1], 3, "there are not two to compare"),
    ],
)
def test_no_metric_is_bold_without_a_difference_larger_than_the_noise(
    tmp_path: Path, variants: Any, seeds: int, why: str
) -> None:
    """Broken if the largest mean is taken for the best, and the note does not say why none is."""
    found = fragments(tmp_path, variants, seeds=seeds)
    assert not any(cell.startswith("0.9") for _, cell in bold(found["result"]))
    assert re.search(f"No metric is bold: .*({why})", found["result"])


def test_the_smallest_of_exact_figures_is_bold_among_those_that_do_the_same_work(tmp_path: Path) -> None:
    """Broken if a linear model on another network, or half the budget, wins."""
    found = fragments(tmp_path, USUAL)
    assert bold(found["memory"]) == [("checkpointing", "35.00")]
    active, whole = "diffusion\\_blocks\\_b3\\_active", "diffusion\\_blocks\\_b3\\_all"
    assert {label for label, _ in bold(found["cost"])} == {"backprop", "greedy", active, whole}
    assert not any("equal" in label or label == "linear" for name in found for label, _ in bold(found[name]))


def test_nothing_is_bold_in_markdown_tables(tmp_path: Path) -> None:
    build(tmp_path, variants=APART, traces=False, curves=False)
    run = load(tmp_path)
    lines = summary_markdown(run, tables.comparison(run), {}).splitlines()
    cells = [line for line in lines if line.startswith("|")]
    assert cells and not any("**" in line for line in cells)


def test_a_table_without_a_row_is_not_written_and_an_old_one_goes(tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "failed.tex").write_text("of an older run")
    assert set(fragments(tmp_path / "", APART)) == {"memory", "cost", "result", "parts", "preview"}
    lost = [failed(variant, seed, "out_of_memory", "") for variant in APART for seed in range(3)]
    assert set(fragments(tmp_path / "lost", APART, failures=lost)) == {"failed", "preview"}


@given(st.text(max_size=30))
def test_no_text_is_a_command(words: str) -> None:
    """Broken if a character that LaTeX acts on gets through: without the known commands none may be left."""
    set_ = latex.escaped(words)
    assert set_.isascii()
    known = r"\\(?:text[a-z]+|char34|ldots|[lL]|ss|ae|AE|[oO]|[cruvH](?=\{))|\\[{}$&%#_]|\\[`'^~\"=.](?=\{)"
    rest = re.sub(r"\$(?:[-\\a-zA-Z]+|\^\\circ|\^[23])\$", "", re.sub(known, "", set_))
    assert not re.search(r"[\\$&%#_^]", rest), set_


UGLY = r"\input{x} & % $ # _ { } ~ ^ <a> | σ × ± é 中 -- '' `` \write18{ls}"
ERROR = r"\input{/etc/passwd} took 100% of $HOME & more"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no TeX is installed")
def test_the_preview_compiles_and_shows_every_name_as_it_is(tmp_path: Path) -> None:
    """Broken if a fragment is no LaTeX, or a suite's author can have a file of the reader's machine typeset."""
    variants = [*USUAL[:2], replace(USUAL[2], label=UGLY)]
    fragments(tmp_path, variants, failures=[failed(USUAL[1], 1, "failed", ERROR)])
    command = ["pdflatex", "-no-shell-escape", "-interaction=nonstopmode", "-halt-on-error", "preview.tex"]
    done = subprocess.run(command, cwd=tmp_path / "tables", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2_000:]
    assert "passwd" not in done.stdout
    if shutil.which("pdftotext"):
        reader = ["pdftotext", "-layout", tmp_path / "tables" / "preview.pdf", "-"]
        shown = subprocess.run(reader, capture_output=True, text=True, check=True).stdout
        for glyph, character in {"’": "'", "˜": "~", "ˆ": "^"}.items():  # TeX's own fonts
            shown = shown.replace(glyph, character)
        plain = unicodedata.normalize("NFC", " ".join(shown.split()))
        assert ERROR in plain
        ugly = UGLY.replace("_ ", "").replace("中", "[U+4E2D]")  # an underscore is a rule, not a glyph
        assert ugly in plain
