"""What is kept: at the end of a measured stretch, after a test, and limits that a whole session has."""

from __future__ import annotations

import pytest
from inner_run import ACTIVATIONS, BATCH, FLOAT, OUT, PARAMETERS, Run

#: Ways to keep a graph or a tensor from one step to the next, each with what it keeps of a step.
LEAKS = {
    "graph": ("KEPT.append(model(batch).square().mean())", ACTIVATIONS),
    "output": ("KEPT.append(model(batch).detach())", BATCH * OUT * FLOAT),
    "attribute": ("model.cache = getattr(model, 'cache', []) + [model(batch).detach()]", BATCH * OUT * FLOAT),
    "closure": ("KEEP(model(batch).detach())", BATCH * OUT * FLOAT),
    "cycle": ("a = {'out': model(batch).detach()}; a['self'] = a; KEPT.append(a)", BATCH * OUT * FLOAT),
    "exception": ("KEPT.append(caught(model(batch).detach()))", BATCH * OUT * FLOAT),
    "hook": ("model.first.register_forward_hook(keeping(model(batch).detach()))", BATCH * OUT * FLOAT),
}
START = """
KEPT = []

def keeper():
    held = []
    return held.append

KEEP = keeper()

def caught(tensor):
    try:
        raise ValueError
    except ValueError as error:
        return error

def keeping(tensor):
    def hook(*args):
        assert tensor is not None
    return hook
"""
IDIOMS = {
    "kept": "@pytest.mark.memory_limit(kept='0 B')\ndef test_it(model, batch):\n    {step}\n",
    "leaks": "@pytest.mark.memory_leaks('0 B', warmup=1)\ndef test_it(model, batch):\n    {step}\n",
    "found.kept": (
        "def test_it(ledger, model, batch):\n    with ledger(model, inputs=batch) as found:\n        {step}\n"
        "    assert found.kept_bytes == 0, found.kept\n"
    ),
}


@pytest.mark.parametrize("idiom", IDIOMS)
@pytest.mark.parametrize("leak", LEAKS)
def test_every_idiom_catches_every_leak(run: Run, leak: str, idiom: str) -> None:
    """The README's own example passed a step that keeps its graph each time."""
    step, size = LEAKS[leak]
    ran = run(START + IDIOMS[idiom].format(step=step))
    assert ran.outcomes == {"test_it": "failed"}, ran.words
    assert f"{size:,}" in ran.words["test_it"] or f"{size}" in ran.words["test_it"] or leak == "graph"


@pytest.mark.parametrize("idiom", IDIOMS)
def test_a_step_that_keeps_nothing_passes(run: Run, idiom: str) -> None:
    ran = run(START + IDIOMS[idiom].format(step="model(batch).square().mean().backward()"))
    assert ran.outcomes == {"test_it": "passed"}, ran.words


def test_a_kept_graph_is_retained_when_its_step_is_over(run: Run) -> None:
    """It passed a limit on 'retained' at 0.0 %: within the one step its bytes are activations."""
    ran = run(
        START + "@pytest.mark.memory_limit(retained='1 KiB')\n"
        "def test_it(model, batch):\n    KEPT.append(model(batch).square().mean())\n"
    )
    assert ran.outcomes == {"test_it": "failed"}
    assert "retained: " in ran.words["test_it"]


def test_a_session_has_limits_of_its_own_and_a_marker_comes_first(run: Run) -> None:
    ran = run(
        """
        def test_within(model):
            pass

        def test_without_tensors():
            assert 1 + 1 == 2

        def test_above(model, batch):
            model(batch).sum().backward()

        @pytest.mark.memory_limit(peak="1 MiB")
        def test_marked(model, batch):
            model(batch).sum().backward()

        @pytest.mark.memory_limit(activations="1 MiB")
        def test_marked_otherwise(model, batch):
            model(batch).sum().backward()
        """,
        f"--memory-limit=peak={PARAMETERS + 64}, kept=0 B",
    )
    assert ran.outcomes == {
        "test_within": "passed",
        "test_without_tensors": "passed",
        "test_above": "failed",
        "test_marked": "passed",
        "test_marked_otherwise": "failed",
    }
    assert "peak: " in ran.words["test_above"]


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("peek=80 MiB", "there is no limit 'peek' (did you mean 'peak'?)"),
        ("much", "write a size"),
        ("1 MiB, peak=2 MiB", "'peak' is limited twice"),
    ],
)
def test_a_session_limit_that_is_none_ends_the_session(run: Run, written: str, words: str) -> None:
    ran = run("def test_it():\n    pass\n", f"--memory-limit={written}")
    assert ran.status == 4
    assert words in ran.output


@pytest.mark.parametrize(
    ("marker", "words"),
    [
        ("'0 B', warmup=-1", "is no number of runs"),
        ("'zero'", "memory_leaks"),
        ("'0 B', warm=1", "did you mean 'warmup'?"),
    ],
)
def test_a_leak_marker_that_is_none_fails_the_collection(run: Run, marker: str, words: str) -> None:
    ran = run(f"@pytest.mark.memory_leaks({marker})\ndef test_it():\n    pass\n")
    assert ran.status != 0
    assert words in ran.output
