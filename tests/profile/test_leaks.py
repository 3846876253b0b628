"""Twelve mistakes that cost memory, each of which the ledger alone has to show: the issue of its whole attribution.

The bytes are counted by hand in `benchmarks.leaks.mistakes`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import dbbench
from benchmarks.leaks.catalogue import MIB, MISTAKES, Mistake
from benchmarks.leaks.mistakes import GRAPH_BYTES, PARAMETERS_BYTES, keep_losses
from benchmarks.leaks.train import LanguageModel, ledger_of, train

#: The ledger's first step: None for a ledger of the last step alone.
LATE, SEVERAL = None, 2

every_mistake = pytest.mark.parametrize("mistake", [pytest.param(m, id=m.name) for m in MISTAKES.values()])
once_and_over_steps = pytest.mark.parametrize("first", [LATE, SEVERAL], ids=["late", "several"])


@cache
def ledger(name: str, first: int | None) -> dbbench.Ledger:
    return ledger_of(MISTAKES[name].script if name else train, first)


def test_there_are_twelve() -> None:
    """Fewer would be tested than are promised."""
    assert len(MISTAKES) == 12
    assert {sign.role for mistake in MISTAKES.values() for sign in mistake.signs} == {
        *("parameters", "gradients", "optimizer", "activations", "temporaries", "buffers", "ema", "retained")
    }


def test_the_hand_counts_are_those_of_the_clean_script() -> None:
    """What the mistakes are measured by would be another model's."""
    assert sum(p.nbytes for p in LanguageModel().parameters()) == PARAMETERS_BYTES
    own = ledger("", LATE).account().own_peaks
    assert own["parameters"] == own["gradients"] == PARAMETERS_BYTES
    assert own["activations"] == GRAPH_BYTES


@once_and_over_steps
def test_the_clean_script_shows_nothing_of_the_kind(first: int | None) -> None:
    """A reader would be sent after what is no mistake."""
    clean = ledger("", first)
    split = clean.peak.split
    assert split["ema"] == split["buffers"] == split["gradients"] == 0
    assert split["retained"] < 4096
    assert "\n! " not in str(clean.table())


@once_and_over_steps
@every_mistake
def test_what_a_mistake_holds_is_in_its_role_and_place(mistake: Mistake, first: int | None) -> None:
    """A byte would be booked on another role, module or holder than the mistake's: against the count by hand."""
    for sign in mistake.signs:
        more = sign.held_bytes(ledger(mistake.name, first)) - sign.held_bytes(ledger("", first))
        assert sign.bytes <= more <= (1 if sign.exact else 1.1) * sign.bytes


@once_and_over_steps
@every_mistake
def test_the_printed_table_alone_shows_it(mistake: Mistake, first: int | None) -> None:
    """The lines that tell would be summed up with others: every one of them, in a table of the default length."""
    mistaken = ledger(mistake.name, first)
    printed = "".join(str(mistaken.table()).split())
    for sign in mistake.signs:
        lines = sign.lines(mistaken)
        assert sign.table_bytes(mistaken) >= sign.bytes - len(lines) * MIB / 100
        assert all(line[0] in printed and line[5] in printed for line in lines)


@once_and_over_steps
@every_mistake
def test_the_difference_begins_with_it(mistake: Mistake, first: int | None) -> None:
    """A reader of the first three sentences would look for another reason."""
    said = ledger("", first).diff(ledger(mistake.name, first)).sentences()[:3]
    assert any(sign.in_sentence(sentence) for sign in mistake.signs for sentence in said), said


@pytest.mark.parametrize(
    ("name", "warning"),
    [
        ("keep_losses", "are retained: alive past the phase that made them"),
        ("retain_graph", "by graph of local 'loss' in retain_graph"),
        ("keep_errors", "by graph of local 'failures[0,1].__traceback__.loss_of.logits' in keep_errors"),
        ("forget_zero_grad", "of gradients are alive as a backward begins: an earlier backward left them"),
        ("foreach_optimizer", "the optimizer's update makes the peak, with 3.27 MiB of scratch"),
    ],
)
def test_the_table_warns(name: str, warning: str) -> None:
    """A reader would have to know what is unusual."""
    assert warning in " ".join(str(ledger(name, LATE).table()).split())


def test_a_growing_leak_is_said_to_grow() -> None:
    """Of several steps a reader would not learn that each needs more than the last."""
    assert "the peak rises from step to step" in str(ledger(keep_losses.__name__, SEVERAL).table())


QUOTED = """
from benchmarks.leaks import mistakes
from benchmarks.leaks.catalogue import MISTAKES
from benchmarks.leaks.train import ledger_of, train
ledger_of(train, None)  # imports what torch imports late
clean = ledger_of(train, None)
for name in {names}:
    mistaken = ledger_of(MISTAKES[name].script, None)
    print(mistaken.table(), clean.diff(mistaken), end="\\f", sep="\\n")
"""


def test_the_readme_quotes_the_ledger() -> None:
    """A reader of 'Find the memory' would be shown what the ledger does not print."""
    root = Path(__file__).parents[2]
    section = (root / "README.md").read_text("utf-8").partition("# Find the memory\n")[2].split("\n#")[0]
    script = QUOTED.format(names=["keep_losses", "forget_zero_grad", "plain_attention"])
    # in a process of its own: what other tests hold is retained
    printed = subprocess.run(
        [sys.executable, "-c", script],
        cwd=root,
        env={**os.environ, "COLUMNS": "120"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\f")
    for block, said in zip(section.split("```")[1::2], printed[:3], strict=False):
        quoted = [line for line in block.strip("\n").splitlines() if line != "…"]
        assert [line for line in quoted if line not in said.splitlines()] == []
        assert len(quoted) > 3
