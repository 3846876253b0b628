"""Every sentence of a verdict against the numbers of the run, by a rule of the test's own."""

from __future__ import annotations

import re
import statistics
import tempfile
from pathlib import Path
from typing import Any

import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import MIB, Variant, build, failed

from dbbench.report.document import markdown
from dbbench.report.run import load
from dbbench.report.tables import comparison
from dbbench.report.verdict import verdict

LEVEL = 0.05
SCORES = st.sampled_from([0.5, 0.6, 0.61, 0.7, 0.7001, 0.9])
ACTIVATIONS = st.sampled_from([10.0, 20.0, 20.01, 60.0, 115.0, 200.0])


@st.composite
def runs(draw: st.DrawFn) -> dict[str, Any]:
    seeds = draw(st.integers(1, 4))
    scores = lambda: tuple(draw(st.lists(SCORES, min_size=seeds, max_size=seeds)))  # noqa: E731
    base = draw(ACTIVATIONS)
    others = [
        {"label": f"v{i}", "scores": scores(), "activations": draw(st.one_of(st.just(base), ACTIVATIONS))}
        for i in range(draw(st.integers(0, 4)))
    ]
    lost = draw(st.sets(st.sampled_from([o["label"] for o in others]))) if others else set()
    return {"seeds": seeds, "base": base, "base_scores": scores(), "others": others, "lost": lost}


def outcome(mine: tuple[float, ...], theirs: tuple[float, ...]) -> str:
    """``kept``, ``worse`` or ``untested``, by scipy's test of the values themselves."""
    if mine == theirs:
        return "kept"
    if len(mine) < 2 or statistics.stdev(mine) == statistics.stdev(theirs) == 0:
        return "untested"
    p = scipy.stats.ttest_ind(mine, theirs, equal_var=False).pvalue
    return "kept" if p >= LEVEL or statistics.mean(mine) > statistics.mean(theirs) else "worse"


@settings(max_examples=120, deadline=None)
@given(runs())
def test_every_sentence_is_true(case: dict[str, Any]) -> None:
    """Equal peaks and one seed were reported as 'each is worse by more than the noise over seeds'."""
    backprop = Variant("backprop", "backprop", case["base_scores"], {}, activations_mib=case["base"])
    others = [Variant(o["label"], "toy", o["scores"], {}, activations_mib=o["activations"]) for o in case["others"]]
    failures = [
        failed(v, seed, "failed", "no more") for v in others if v.label in case["lost"] for seed in range(case["seeds"])
    ]
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder), [backprop, *others], case["seeds"], failures, traces=False, curves=False, timings=False)
        run = load(Path(folder))
        table = comparison(run)
        said = markdown(verdict(run, table))
    peaks = dict(zip(table["variant"], table["peak_bytes"], strict=True))
    finished = {o["label"]: o["scores"] for o in case["others"] if o["label"] not in case["lost"]}
    if not finished:
        assert said.endswith("No other variant finished on the same network.")
        return
    least = min(int(peaks[label]) for label in finished)
    holder = re.search(r"network(?:,| is) `(\w+)`(?: holds the least at its peak)?: ([\d,.]+) MiB", said)
    assert holder is not None
    assert peaks[holder[1]] == least
    assert holder[2] == f"{least / MIB:,.2f}"
    alike = {label for label in finished if peaks[label] == least} - {holder[1]}
    told = re.search(r"The same bytes: ([^.]*)\.", said)
    assert set(re.findall(r"`(\w+)`", told[1]) if told else ()) == alike
    smaller = {
        label: outcome(finished[label], case["base_scores"]) for label in finished if peaks[label] < peaks["backprop"]
    }
    kept = [label for label, how in smaller.items() if how == "kept"]
    untested = {label for label, how in smaller.items() if how == "untested"}
    if not smaller:
        assert said.endswith("No other variant has a smaller peak than backprop.")
    elif kept:
        best = min(int(peaks[label]) for label in kept)
        named = re.search(r"test, `(\w+)` holds the least, ([\d,.]+) MiB", said)
        assert named is not None or "It is also the least of those" in said
        assert peaks[named[1] if named else holder[1]] == best
    elif untested == set(smaller):
        assert "cannot be said: that takes two seeds or more" in said
    else:
        assert "is worse by more than the noise over seeds." in said
        assert ("is shown to keep" in said) == bool(untested)
    missing = re.search(r"Not tested, for want of seeds or of the metric: ([^.]*)\.", said)
    if missing:
        assert set(re.findall(r"`(\w+)`", missing[1])) == untested
    elif untested:
        assert untested == set(smaller)
    compared = re.search(r"MiB, (exactly as much as backprop|[\d,]+ bytes \w+ than|[\d.]+× (?:less|as much))", said)
    assert compared is not None
    if compared[1].startswith("exactly"):
        assert least == peaks["backprop"]
    elif "bytes" in compared[1]:
        assert compared[1].startswith(f"{abs(least - int(peaks['backprop'])):,} bytes")
    else:
        ratio = float(compared[1].split("×")[0])
        exact = peaks["backprop"] / least if "less" in compared[1] else least / peaks["backprop"]
        assert abs(ratio - exact) <= 0.006
        assert ratio >= 1
