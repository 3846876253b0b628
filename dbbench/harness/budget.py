"""Turns a budget into steps: how many, and which block each one trains.

The whole course is decided on the host before training starts, so that every learning rate knows how far along its
block is, and a block trained alone takes exactly the steps it takes in the joint run. Only a budget in seconds is
decided as it goes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from dbbench.errors import BadInput
from dbbench.methods.base import Method, Plan
from dbbench.suite.cell import Budget

MOST_STEPS = 50_000_000


def step_cost(budget: Budget, layers: int, samples: int, flops: float | None) -> float:
    """Return what one step spends of ``budget``, in its own unit (layer updates, samples or FLOPs)."""
    if budget.kind == "layer_updates":
        return layers
    if budget.kind == "samples":
        return samples
    assert flops is not None
    return flops


def course(
    method: Method, budget: Budget, batch_size: int, flops_by_block: Mapping[int, int] | None = None
) -> list[Plan]:
    """Return every step that ``method`` takes within ``budget`` (not in seconds), in order; none oversteps it.

    ``flops_by_block`` (measured by the traced pass) is needed for a budget in FLOPs alone.
    """
    blocks: list[int] = []
    fractions: list[float] = []
    spent = 0.0
    while True:
        block = method.plan(len(blocks), spent / budget.value)
        flops = None if flops_by_block is None else flops_by_block[block]
        cost = step_cost(budget, method.layers_per_block[block], batch_size, flops)
        _check(budget, cost)
        if spent + cost > budget.value:
            break
        fractions.append(spent / budget.value)
        blocks.append(block)
        spent += cost
    totals = Counter(blocks)
    taken: Counter[int] = Counter()
    plans = []
    for step, (block, fraction) in enumerate(zip(blocks, fractions, strict=True)):
        plans.append(Plan(step, block, taken[block], taken[block] / totals[block], fraction))
        taken[block] += 1
    return plans


def step_count(method: Method, budget: Budget, batch_size: int) -> int:
    """Return how many steps `course` has for a budget in layer updates or samples."""
    costs = {step_cost(budget, layers, batch_size, None) for layers in method.layers_per_block}
    if len(costs) > 1:
        return len(course(method, budget, batch_size))
    (cost,) = costs
    _check(budget, cost)
    return int(budget.value // cost)


def _check(budget: Budget, cost: float) -> None:
    if cost <= 0 or budget.value / cost > MOST_STEPS:
        raise BadInput(f"budget.value: {budget.value:g} {budget.kind} is no finite number of steps here")
    if cost > budget.value:
        raise BadInput(f"budget.value: {budget.value:g} {budget.kind} is less than one step costs ({cost:g})")


def course_in_seconds(method: Method, seconds: float, elapsed: Callable[[], float]) -> Iterator[Plan]:
    """Yield steps until ``elapsed()`` says that ``seconds`` are spent.

    Both fractions are the time's; a stage's own is its part of it.
    """
    taken: Counter[int] = Counter()
    step = 0
    while (fraction := elapsed() / seconds) < 1.0:
        block = method.plan(step, fraction)
        own = fraction * method.blocks - block if method.staged else fraction
        yield Plan(step, block, taken[block], min(own, 1.0), fraction)
        taken[block] += 1
        step += 1
