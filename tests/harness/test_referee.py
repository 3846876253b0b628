"""A zoo of methods that cheat or are mistaken: each cell fails and says how; honest ones are let alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_cells import make_cell

from dbbench.errors import BrokenContract
from dbbench.harness.cell import run_cell
from dbbench.harness.referee import bound_problem, prediction_problem, report_problem
from dbbench.harness.resolve import resolve_cell
from dbbench.harness.training import Loop
from dbbench.harness.worker import describe
from dbbench.methods.base import StepReport
from dbbench.results.sound import ROUNDING
from dbbench.suite.cell import Budget, Cell, NetworkChoice, TaskChoice
from dbbench.tasks.base import Metric

#: By class in `toy_methods.cheats`: what its cell's row must say.
ON_IMAGES = {
    "Louder": "predict on the validation split is no log-probability: the logarithm of its sum is off by 5",
    "RawLogits": "predict on the validation split is no log-probability",
    "LouderElsewhere": "predict['sharpened'] on the validation split is no log-probability",
    "WrongShape": "predict on the validation split has the shape [",
    "Answers": "predict on the validation split has the shape [",
    "AsksItsNeighbours": "of a sample depends on the others of its batch",
    "GuessesAnew": "differs when it is asked again",
    "LearnsFromThePaper": "predict changes parameters",
    "ReadsTheTest": "the method reads the test split",
    "ReadsTheTestAtFirst": "the method reads the test split",
    "ReadsMore": "a step draws a training batch more",
    "CountsOne": "reports 1 layers updated, and its block has 2",
    "CountsHalf": "reports 16 samples, and was given 32",
    "SplitsByName": "reports 1 layers updated, and it updates 2",
    "StepsTwice": "reports 2 layers updated, and it updates 4",
    "Frozen": "block 0 reports 2 layers updated a step, and no more than 1 are",
    "KeepsItsLoss": "reports a loss that is not detached",
    "LossOfPython": "reports a float as its loss, not a scalar tensor",
    "SaysNothing": "returns None, not a StepReport",
    "OwnMeasure": "the method replaces 'measure' of its task",
    "TouchesWhatItMayNot": "changes what may_change rules out",
}
ON_TEXT = {
    "Louder": "no log-probability",
    "LooksAhead": "of a token depends on the tokens behind it",
    "AsksItsNeighbours": "of a sample depends on the others of its batch",
}


def on_text(method: str, **changes: Any) -> Cell:
    task = TaskChoice(name="plays", sequence_length=32, evaluation_windows=16, samples=0)
    network = NetworkChoice(name="llama", size="micro", depth=2)
    return make_cell("mine", method, task=task, network=network, budget=Budget(kind="samples", value=128), **changes)


def refused(cell: Cell) -> str:
    with pytest.raises(BrokenContract) as failure:
        run_cell(cell, "0" * 16, lambda progress: None)
    status, line = describe(failure.value)
    assert status == "failed"
    assert "\n" not in line
    return line


@pytest.mark.parametrize("cheat", ON_IMAGES)
def test_a_cheat_or_a_mistake_is_a_failed_cell_that_says_which(cheat: str) -> None:
    """A method is believed, and its impossible score stands in the table as any other."""
    assert ON_IMAGES[cheat] in refused(make_cell("mine", f"toy_methods.cheats:{cheat}"))


@pytest.mark.parametrize("cheat", ON_TEXT)
def test_so_it_is_on_text(cheat: str) -> None:
    """The bits per character of a model that sees the next one are few."""
    assert ON_TEXT[cheat] in refused(on_text(f"toy_methods.cheats:{cheat}"))


@pytest.mark.parametrize("method", ["backprop", "checkpointing", "greedy", "diffusion_blocks"])
def test_the_honest_are_let_alone_and_looked_at(method: str) -> None:
    """A check that a method of ours fails would be of no use, nor one that is never made."""
    options = {"blocks": 2} if method == "diffusion_blocks" else {}
    for cell in (make_cell("mine", method, options=options), on_text(method, options=options)):
        assert run_cell(cell, "0" * 16, lambda progress: None).record.row.status == "ok"


def test_a_step_late_in_training_is_looked_at_as_well() -> None:
    """A method that behaves for a while would get away."""
    cell = make_cell("mine", "toy_methods.cheats:StepsTwice")
    resolved = resolve_cell(cell, "test")
    built = resolved.build(resolved.load_task())
    referee = Loop(built, built.task, cell).referee
    moments = [step for step in range(4000) if referee.is_due(step) and not _look(referee, step)]
    assert 6 <= len(moments) <= 40
    assert any(step > 200 for step in moments)


def _look(referee: object, step: int) -> None:
    referee._next = step + 1 + referee._moments.randint(0, step + 1)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("report", "problem"),
    [
        (StepReport(torch.zeros(()), 2, 8), ""),
        (StepReport(torch.zeros(1), 2, 8), "a tensor of shape [1]"),
        (StepReport(torch.zeros(()), True, 8), "True layers"),  # type: ignore[arg-type]
        (StepReport(torch.zeros(()), -2, 8), "-2 layers"),
        (StepReport(torch.zeros(()), 2, 10**30), "samples, and was given 8"),
        ((torch.zeros(()), 2, 8), "a tuple, not a StepReport"),
    ],
)
def test_a_report_is_held_against_its_plan(report: object, problem: str) -> None:
    found = report_problem(report, 2, 8)
    assert (problem in found) if problem else not found


def test_rounding_is_no_broken_bound_and_more_is() -> None:
    accuracy = Metric("accuracy", "fraction", "higher", 0, 1)
    assert not bound_problem(accuracy, 1 + ROUNDING / 2)
    assert "cannot be above 1" in bound_problem(accuracy, 1.1)
    assert "cannot be below 0" in bound_problem(accuracy, -0.1)
    assert not bound_problem(Metric("energy", "J", "lower"), -1e9)


def test_a_probability_of_nothing_is_a_probability() -> None:
    """A class that was never seen has the logarithm minus infinity, and the rest sums to one all the same."""
    resolved = resolve_cell(make_cell("mine"), "test")
    task = resolved.load_task()
    certain = torch.full((4, 10), -torch.inf)
    certain[:, 3] = 0.0
    assert prediction_problem(task, 4, certain) == ""
    assert "no finite number" in prediction_problem(task, 4, torch.full((4, 10), torch.nan))
    assert "no log-probability" in prediction_problem(task, 4, torch.full((4, 10), -torch.inf))
