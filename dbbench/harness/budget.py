"""Turns a budget into steps: how many, and which block each one trains.

The whole course is decided on the host before training starts, so that every learning rate knows how far along its
block is, and a block trained alone takes exactly the steps it takes in the joint run. Only a budget in seconds is
decided as it goes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from dbbench.errors import BadInput
from dbbench.methods.base import Method, Plan
from dbbench.suite.cell import Budget

MOST_STEPS = 10_000_000


def step_costs(
    method: Method, budget: Budget, batch_size: int, flops_by_block: Mapping[int, int] | None = None
) -> list[float]:
    """Return what a step of each block spends of ``budget``, in its own unit (layer updates, samples or FLOPs)."""
    if budget.kind == "layer_updates":
        return list(method.layers_per_block)
    if budget.kind == "samples":
        return [batch_size] * method.blocks
    assert flops_by_block is not None
    return [flops_by_block[block] for block in range(method.blocks)]


def course(
    method: Method, budget: Budget, batch_size: int, flops_by_block: Mapping[int, int] | None = None
) -> list[Plan]:
    """Return every step that ``method`` takes within ``budget`` (not in seconds), in order; none oversteps it.

    A staged method's stages get equal shares and overstep none of them. ``flops_by_block`` (measured by the traced
    pass) is needed for a budget in FLOPs alone.
    """
    costs = step_costs(method, budget, batch_size, flops_by_block)
    order = list(_staged(budget, costs) if method.staged else _interleaved(method, budget, costs))
    totals = Counter(block for block, _ in order)
    taken: Counter[int] = Counter()
    plans = []
    for step, (block, fraction) in enumerate(order):
        plans.append(Plan(step, block, taken[block], taken[block] / totals[block], fraction))
        taken[block] += 1
    return plans


def planned(method: Method, step: int, fraction: float) -> int:
    """Return the block that ``method`` plans; ValueError where that is none of its blocks."""
    block = method.plan(step, fraction)
    if type(block) is not int or not 0 <= block < method.blocks:
        raise ValueError(f"plan({step}, {fraction:g}) gives block {block!r:.40}; there are {method.blocks}, from 0 on")
    return block


def _interleaved(method: Method, budget: Budget, costs: Sequence[float]) -> Iterator[tuple[int, float]]:
    """Yield (block, share of the budget spent before it) as the method plans them."""
    _check(budget, costs, budget.value)
    spent, step = 0.0, 0
    while spent + costs[block := planned(method, step, spent / budget.value)] <= budget.value:
        yield block, spent / budget.value
        spent += costs[block]
        step += 1


def _staged(budget: Budget, costs: Sequence[float]) -> Iterator[tuple[int, float]]:
    """Yield (stage, share of the budget spent before it), one stage after another."""
    share = budget.value / len(costs)
    _check(budget, costs, share)
    for stage, cost in enumerate(costs):
        for step in range(int(share // cost)):
            yield stage, (stage * share + step * cost) / budget.value


def step_count(method: Method, budget: Budget, batch_size: int) -> int:
    """Return how many steps `course` has for a budget in layer updates or samples."""
    costs = step_costs(method, budget, batch_size)
    if not method.staged and len(set(costs)) > 1:
        return len(course(method, budget, batch_size))
    share = budget.value / len(costs) if method.staged else budget.value
    _check(budget, costs, share)
    return sum(int(share // cost) for cost in costs) if method.staged else int(share // costs[0])


def _check(budget: Budget, costs: Sequence[float], share: float) -> None:
    """Raise BadInput unless every block can take a step within ``share`` of the budget, and not without end."""
    if min(costs) <= 0:
        raise BadInput(f"budget.value: {budget.value:g} {budget.kind} is no finite number of steps here")
    if share / min(costs) > MOST_STEPS:
        steps = f"{share / min(costs):.3g} steps; at most {MOST_STEPS:,} are allowed"
        raise BadInput(f"budget.value: {budget.value:g} {budget.kind} is {steps}")
    if max(costs) > share:
        part = f" leaves a stage {share:g}, which" if share < budget.value else ""
        raise BadInput(
            f"budget.value: {budget.value:g} {budget.kind}{part} is less than one step costs ({max(costs):g})"
        )


def course_in_seconds(method: Method, seconds: float, elapsed: Callable[[], float]) -> Iterator[Plan]:
    """Yield steps until ``elapsed()`` says that ``seconds`` are spent, one at least.

    Both fractions are the time's; a stage's own is its part of it.
    """
    taken: Counter[int] = Counter()
    step = 0
    while (fraction := min(elapsed() / seconds, 1.0)) < 1.0 or not step:
        block = planned(method, step, fraction)
        own = fraction * method.blocks - block if method.staged else fraction
        yield Plan(step, block, taken[block], min(own, 1.0), fraction)
        taken[block] += 1
        step += 1
