"""Budgets turned into steps: equal for every method, never overstepped, and along a course that ends."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from method_steps import VARIANTS, built

from dbbench.errors import BadInput
from dbbench.harness.budget import course, course_in_seconds
from dbbench.harness.training import Loop, train
from dbbench.methods.base import Method, Plan
from dbbench.suite.cell import Budget

BATCH = 16


def method_of(variant: str, **changes: Any) -> Method:
    """Return a method by its variant's name."""
    name, options = VARIANTS[variant]
    return built(name, **(options | changes))[0]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("kind", ["layer_updates", "samples", "flops"])
def test_a_budget_is_spent_and_not_overstepped(variant: str, kind: str) -> None:
    """A method would train longer than the others, or stop a step short."""
    method, value = method_of(variant, depth=5), 1_234.0
    flops = {block: 7 * layers for block, layers in enumerate(method.layers_per_block)}
    plans = course(method, Budget(kind=kind, value=value), BATCH, flops)  # type: ignore[arg-type]
    each = {
        "layer_updates": lambda b: method.layers_per_block[b],
        "samples": lambda b: BATCH,
        "flops": lambda b: flops[b],
    }[kind]
    spent = sum(each(plan.block) for plan in plans)
    assert spent <= value
    shares = method.blocks if method.staged else 1  # each may leave what is less than a step
    assert value - spent < shares * max(each(block) for block in range(method.blocks))


@given(st.integers(1, 6), st.integers(1, 6), st.sampled_from(["layer_updates", "samples"]), st.integers(40, 700))
@settings(max_examples=25, deadline=None)
def test_greedys_stages_share_the_budget_equally(depth: int, k: int, kind: str, value: int) -> None:
    """One stage would be trained at another's cost: each spends its share of the budget, to less than a step."""
    method = built("greedy", depth=depth, layers_per_stage=min(k, depth))[0]
    costs = [BATCH if kind == "samples" else layers for layers in method.layers_per_block]
    share = value / method.blocks
    try:
        plans = course(method, Budget(kind=kind, value=value), BATCH)  # type: ignore[arg-type]
    except BadInput:
        assert max(costs) > share
        return
    assert [plan.block for plan in plans] == sorted(plan.block for plan in plans)
    steps = Counter(plan.block for plan in plans)
    for stage, cost in enumerate(costs):
        assert share - cost < steps[stage] * cost <= share


@pytest.mark.parametrize("variant", VARIANTS)
def test_fractions_rise_inside_each_block_from_nothing_to_less_than_one(variant: str) -> None:
    """A block's learning rate would jump, or go below its end."""
    method = method_of(variant)
    plans = course(method, Budget(kind="layer_updates", value=150), BATCH)
    assert [plan.step for plan in plans] == list(range(len(plans)))
    fractions = [plan.fraction for plan in plans]
    assert fractions == sorted(set(fractions))
    assert fractions[0] == 0 and fractions[-1] < 1
    for block in {plan.block for plan in plans}:
        mine = [plan for plan in plans if plan.block == block]
        assert [plan.block_step for plan in mine] == list(range(len(mine)))
        assert [plan.block_fraction for plan in mine] == pytest.approx([i / len(mine) for i in range(len(mine))])


def test_equal_layer_updates_give_a_block_method_more_steps() -> None:
    """The budget's unit would not be what the definitions say: a step on L/B layers makes L/B updates."""
    whole = course(method_of("backprop", depth=6), Budget(kind="layer_updates", value=600), BATCH)
    blocks = course(method_of("blocks", depth=6), Budget(kind="layer_updates", value=600), BATCH)
    assert (len(whole), len(blocks)) == (100, 200)


@pytest.mark.parametrize(("kind", "value"), [("layer_updates", 2), ("samples", 15), ("flops", 9.0)])
def test_a_budget_below_one_step_is_refused(kind: str, value: float) -> None:
    """A cell would train nothing and report the accuracy of chance."""
    with pytest.raises(BadInput, match=f"budget.value: {value:g} {kind} is less than one step costs"):
        course(method_of("backprop"), Budget(kind=kind, value=value), BATCH, {0: 10})  # type: ignore[arg-type]


def test_a_budget_of_too_many_steps_is_refused_at_once() -> None:
    """A slip of the keyboard in a suite would fill the memory with plans."""
    with pytest.raises(BadInput, match=r"is 6\.25e\+16 steps; at most 10,000,000 are allowed"):
        course(method_of("backprop"), Budget(kind="samples", value=1e18), BATCH)


class Clock:
    """A clock that goes on by a second with every look at it."""

    now = -1.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def test_a_budget_in_seconds_stops_in_time() -> None:
    """A cell would run on; each look at the clock is a step of one second."""
    plans = list(course_in_seconds(method_of("backprop"), 10.0, Clock()))
    assert [plan.fraction for plan in plans] == pytest.approx([i / 10 for i in range(10)])
    assert [plan.block_step for plan in plans] == list(range(10))


def test_a_budget_in_seconds_takes_a_step_however_short_it_is() -> None:
    """A training of no steps would divide by their number when it is over."""
    (plan,) = course_in_seconds(method_of("backprop"), 1e-9, Clock())
    assert (plan.step, plan.block) == (0, 0)


def test_a_budget_in_seconds_is_divided_among_stages() -> None:
    """A stage's learning rate would follow the whole run's course and never warm up."""
    plans = list(course_in_seconds(method_of("greedy", depth=2), 20.0, Clock()))
    assert [plan.block for plan in plans] == [0] * 10 + [1] * 10
    assert [plan.block_fraction for plan in plans] == pytest.approx([i / 10 for i in range(10)] * 2)


def test_a_run_in_real_seconds_ends_near_its_budget() -> None:
    """The loop would not ask the clock, or count the evaluations as training."""
    method, loop = built("backprop")
    cell = loop.cell.model_copy(update={"budget": Budget(kind="seconds", value=0.4)})
    done = train(Loop(method, loop.task, cell), None, lambda _: None)
    assert 0.4 <= done.seconds < 5.0
    assert done.steps > 3
    assert done.samples == done.steps * BATCH


def test_the_learning_curve_counts_what_was_done() -> None:
    """The curves' axis would be off, or a training loss would mix two stretches."""
    method, loop = built("backprop")
    plans = course(method, Budget(kind="samples", value=10 * BATCH), BATCH)
    done = train(loop, plans, lambda _: None)
    validation = [row for row in done.curve if row["name"] == "accuracy"]
    assert [row["step"] for row in validation] == [0, 5, 10]
    assert [row["samples"] for row in validation] == [0, 5 * BATCH, 10 * BATCH]
    assert [row["budget_fraction"] for row in validation] == [0.0, 0.5, 1.0]
    trained = [row for row in done.curve if row["split"] == "train"]
    again_loop = built("backprop")[1]
    losses = [float(again_loop.step(plan)) for plan in plans]
    assert [row["value"] for row in trained] == pytest.approx([sum(losses[:5]) / 5, sum(losses[5:]) / 5], rel=1e-6)
    assert torch.is_grad_enabled()


def test_the_loop_seeds_the_global_generator_by_block_and_its_step() -> None:
    """Dropout would tie blocks together: a block trained alone would draw other masks."""
    method, loop = built("diffusion_blocks", blocks=2, depth=2)
    drawn: list[float] = []
    step = method.step

    def listening(batch: Any, plan: Plan) -> Any:
        drawn.append(torch.rand(()).item())
        return step(batch, plan)

    method.step = listening  # type: ignore[method-assign]
    for number, (block, block_step) in enumerate([(0, 0), (1, 0), (0, 1), (0, 0)]):
        loop.step(Plan(number, block, block_step, 0.5, 0.5))
    assert drawn[0] == drawn[3]
    assert len(set(drawn)) == 3
