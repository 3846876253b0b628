"""Root or consequence: peaks that move, modules that grow with their parameters, what is below the peak."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from dbbench.gate.cells import Cell, cell_of
from dbbench.gate.culprit import causes
from dbbench.results.record import Record
from dbbench.results.roles import ROLES

COLUMNS = ["step", "block", "phase", "role", "module", "op", "storage", "bytes", "made_by", "holder"]

#: (phase, role, module, op, bytes): what is made then and freed at the end of the step, or at the next of its number.
Event = tuple[str, str, str, str, int]


def frame_of(resident: Iterable[Event], events: Iterable[tuple[int, Event]]) -> pd.DataFrame:
    """A step: what is resident, then events of numbered storages, the second of a number its free."""
    rows: list[tuple[Any, ...]] = []
    for _, role, module, op, size in resident:
        rows.append((0, 0, "resident", role, module, "(resident)", -1, size, op, ""))
    alive: set[int] = set()
    for number, (phase, role, module, op, size) in events:
        sign = -1 if number in alive else 1
        alive ^= {number}
        rows.append((0, 0, phase, role, module, op, number, sign * size, op, ""))
    return pd.DataFrame(rows, columns=COLUMNS)


def cell(resident: list[Event], events: list[tuple[int, Event]], make_record: Any) -> Cell:
    """The cell that a ledger would have made of a step, its columns from a replay row by row."""
    frame = frame_of(resident, events)
    held, peak = dict.fromkeys(ROLES, 0), -1
    split, own = dict(held), dict(held)
    for role, phase, size in frame[["role", "phase", "bytes"]].itertuples(index=False):
        held[role] += size
        own[role] = max(own[role], held[role])
        if phase != "resident" and sum(held.values()) > peak:
            peak, split = sum(held.values()), dict(held)
    columns = {f"{role}_bytes": size for role, size in split.items()}
    columns |= {f"{role}_own_peak_bytes": size for role, size in own.items()}
    record: Record = make_record(peak_bytes=peak, source="cpu", **columns)
    return cell_of("s/one", record, frame)


def step(
    width: int = 10, activations: tuple[int, ...] = (100, 100), scratch: int = 20, kept: int = 0, early: bool = False
) -> tuple[list[Event], list[tuple[int, Event]]]:
    """A model of one layer per entry of ``activations``: forward, backward, an optimizer that needs ``scratch``.

    ``kept`` is a gradient's size that is there from the step before on.
    """
    layers = range(len(activations))
    resident: list[Event] = [("", "parameters", f"layers.{i}", "weight", width) for i in layers]
    resident += [("", "optimizer", f"layers.{i}", "exp_avg", width) for i in layers]
    if kept:
        resident += [("", "gradients", f"layers.{i}", "weight", kept) for i in layers]
    made = [(i, ("forward", "activations", f"layers.{i}", "mm", activations[i])) for i in layers]
    events: list[tuple[int, Event]] = list(made)
    for i in reversed(layers):
        if not kept:
            events.append((10 + i, ("backward", "gradients", f"layers.{i}", "weight", width)))
        events.append((i, ("backward", *made[i][1][1:])))
    events += [(20, ("optimizer", "temporaries", "", "_foreach_sqrt", scratch))] * 2
    if not kept:
        events += [(10 + i, ("optimizer", "gradients", f"layers.{i}", "weight", width)) for i in layers]
    return resident, events


def test_parameters_are_the_root_of_what_grows_with_them(make_record: Any) -> None:
    """Broken if the largest consequence, two moments for each parameter, is blamed for a wider layer."""
    before, after = cell(*step(), make_record), cell(*step(width=40), make_record)
    found, following = causes(before, after)
    assert [cause.role for cause in found] == ["parameters"]
    assert found[0].difference_bytes == 60
    assert found[0].culprits[0].modules == ["layers.0", "layers.1"]
    assert [sentence.partition(" ")[0] for sentence in following] == ["gradients", "optimizer"]


def test_activations_elsewhere_are_a_cause_of_their_own(make_record: Any) -> None:
    """Broken if anything that grows beside a parameter, however large and wherever, is explained away by it."""
    before = cell(*step(activations=(100, 100, 100)), make_record)
    resident, events = step(activations=(100, 900, 100))
    resident[0] = ("", "parameters", "layers.0", "weight", 11)
    found, _ = causes(before, cell(resident, events, make_record))
    assert [(cause.role, cause.culprits[0].modules) for cause in found] == [
        ("activations", ["layers.1"]),
        ("parameters", ["layers.0"]),
    ]


def test_a_peak_that_moved_blames_no_role_that_stayed(make_record: Any) -> None:
    """Broken if activations that are gone when the optimizer runs count as an improvement, and gradients as a leak."""
    before, after = cell(*step(), make_record), cell(*step(scratch=400), make_record)
    assert before.bytes("activations_bytes") and not after.bytes("activations_bytes")
    found, following = causes(before, after)
    assert [(cause.role, cause.difference_bytes) for cause in found] == [("temporaries", 380)]
    assert (found[0].culprits[0].op, following) == ("_foreach_sqrt", [])


def test_what_reaches_no_further_and_is_there_for_longer(make_record: Any) -> None:
    """Broken if gradients that are kept from step to step, whose own peak is as before, have no name."""
    before, after = cell(*step(), make_record), cell(*step(kept=10), make_record)
    assert after.bytes("gradients_own_peak_bytes") == before.bytes("gradients_own_peak_bytes")
    found, _ = causes(before, after)
    assert [(cause.role, cause.instant) for cause in found] == [("gradients", "peak")]
    assert found[0].difference_bytes == after.bytes("peak_bytes") - before.bytes("peak_bytes")


def test_scratch_below_the_peak_is_named_by_its_phase(make_record: Any) -> None:
    """Broken if what does not raise the peak yet goes unseen until it does."""
    before, after = cell(*step(scratch=0), make_record), cell(*step(scratch=30), make_record)
    assert before.bytes("peak_bytes") == after.bytes("peak_bytes")
    found, _ = causes(before, after)
    assert (found[0].role, found[0].instant) == ("temporaries", "own peak")
    resident, events = step(scratch=30)
    events[2:2] = [(30, ("forward", "temporaries", "head", "softmax", 60))] * 2
    before = cell(resident, [e for e in events if e[0] != 20], make_record)
    found, _ = causes(before, cell(resident, events, make_record))
    assert [(cause.role, cause.instant) for cause in found] == [("temporaries", "own peak in optimizer")]
    assert found[0].culprits[0].op == "_foreach_sqrt"


def test_what_fills_a_phase_below_the_peak_is_named(make_record: Any) -> None:
    """Broken if a role that is there for longer, but not at the peak, is called nothing at all."""
    resident, events = step()
    big = [(40, ("backward", "temporaries", "", "big", 500))] * 2
    freed = events.index((10, ("optimizer", "gradients", "layers.0", "weight", 10)))
    later = [*events[:freed], (60, ("inference", "temporaries", "", "softmax", 5)), *events[freed:]]
    earlier = [*events, (60, ("inference", "temporaries", "", "softmax", 5))]
    before = cell(resident, [*earlier[:4], *big, *earlier[4:]], make_record)
    after = cell(resident, [*later[:4], *big, *later[4:]], make_record)
    found, _ = causes(before, after)
    assert [(cause.role, cause.instant) for cause in found] == [("gradients", "peak in inference")]
    assert found[0].difference_bytes == 20
    assert found[0].culprits[0].modules == ["layers.0", "layers.1"], "before there were none, so all of them are new"


def two_blocks(second: dict[str, int], make_record: Any) -> Cell:
    """A cell that trains block 0, whose activations are the larger, and block 1 with ``second``, bytes by module."""
    layers = [{"layers.0": 500, "layers.1": 400}, second]
    events: list[tuple[int, Event]] = []
    for block, sizes in enumerate(layers):
        made: list[tuple[int, Event]] = [
            (10 * block + i, ("forward", "activations", module, "mm", size))
            for i, (module, size) in enumerate(sizes.items())
        ]
        events += [*made, *((number, ("backward", *event[1:])) for number, event in made)]
    frame = frame_of([("", "parameters", "layers.0", "weight", 10)], events)
    first = 2 * len(layers[0])
    frame = pd.concat([frame.iloc[: 1 + first], frame.iloc[:1], frame.iloc[1 + first :]], ignore_index=True)
    frame.loc[1 + first :, ["step", "block"]] = 1
    sizes = dict.fromkeys(ROLES, 0) | {"parameters": 10, "activations": 900}
    columns = {f"{role}{end}": size for role, size in sizes.items() for end in ("_bytes", "_own_peak_bytes")}
    return cell_of("s/one", make_record(peak_bytes=910, source="cpu", **columns), frame)


@pytest.mark.parametrize(
    ("before", "after", "modules"),
    [
        # the baseline has no line of block 1, so that either module may have grown
        ({"layers.2": 100}, {"layers.2": 100, "layers.3": 60}, None),
        # and what block 0 holds is not taken for what block 1 held, though it is as large
        ({"layers.2": 900}, {"layers.2": 700}, None),
        # nothing was held: all is new
        ({}, {"layers.2": 100}, ["layers.2"]),
        # the modules of block 0 are known, and the one besides is as large as the change
        ({"layers.0": 500, "layers.1": 100}, {"layers.0": 500, "layers.1": 100, "layers.3": 60}, ["layers.3"]),
    ],
)
def test_a_change_at_a_blocks_peak_alone_has_its_module_where_that_is_known(
    before: dict[str, int], after: dict[str, int], modules: list[str] | None, make_record: Any
) -> None:
    """Broken if what grows in a block that does not hold the peak has no name, or gets that of another module."""
    expected = replace(two_blocks(before, make_record), parts={})  # as a baseline's file has it
    found, _ = causes(expected, two_blocks(after, make_record))
    assert [(cause.role, cause.instant) for cause in found] == [("activations", "peak of block 1")]
    assert found[0].difference_bytes == sum(after.values()) - sum(before.values())
    assert found[0].culprits[0].modules == (modules or [""])


def test_one_more_layer_is_its_parameters(make_record: Any) -> None:
    """Broken if depth is blamed on the activations of the new layer, or the new layer has no name."""
    before, after = cell(*step(width=50), make_record), cell(*step(50, (100, 100, 100)), make_record)
    found, following = causes(before, after)
    assert (found[0].role, found[0].culprits[0].modules) == ("parameters", ["layers.2"])
    assert any(sentence.startswith("activations") for sentence in following)


def test_what_has_no_parameters_follows_its_neighbours(make_record: Any) -> None:
    """Broken if a wider MLP is blamed on the activation function between its two maps."""

    def mlp(width: int) -> Cell:
        names = ("layers.0.mlp.up", "layers.0.mlp.down", "layers.1.mlp.up")
        resident = [("", "parameters", name, "weight", width if "0.mlp" in name else 10) for name in names]
        made = [
            (0, ("forward", "activations", "layers.0.mlp.act", "gelu", 9 * width)),
            (1, ("forward", "activations", "layers.1.mlp.act", "gelu", 90)),
        ]
        return cell(resident, [*made, *[(number, ("backward", *event[1:])) for number, event in made]], make_record)

    found, following = causes(mlp(10), mlp(20))
    assert [cause.role for cause in found] == ["parameters"]
    assert len(following) == 1


def test_numbered_modules_share_a_sentence(make_record: Any) -> None:
    """Broken if thirty layers that grew alike take thirty lines."""
    before, after = cell(*step(activations=(100,) * 6), make_record), cell(*step(activations=(164,) * 6), make_record)
    found, _ = causes(before, after)
    assert [culprit.module for culprit in found[0].culprits] == ["layers.{0..5}"]
    assert found[0].culprits[0].modules == [f"layers.{i}" for i in range(6)]
    assert "in layers.{0..5} (6 ×)" in found[0].culprits[0].sentence
