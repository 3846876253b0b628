"""The contract test of a method: the promises of `dbbench.methods.base.Method`, kept or broken in a few real steps.

A stranger's test is one call on a small cell, whose method is named by its dotted path:

    from dbbench.harness.contract import check_method
    from dbbench.suite.expand import expand
    from dbbench.suite.load import load_suite
    from dbbench.suite.schema import Suite, check

    def test_my_method_keeps_the_contract():
        suite, where = load_suite("tests/my_method.yaml")
        for cell in expand(check(Suite, suite, where), "cpu"):
            check_method(cell)

It stands in this room, not beside the methods, because it resolves and trains a cell.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dbbench.harness.referee import prediction_problem, report_problem, some
from dbbench.harness.resolve import Resolved, resolve_cell
from dbbench.harness.tracing import rehearsal
from dbbench.harness.training import Loop
from dbbench.measure.private import FakeTensor, FakeTensorMode
from dbbench.methods.base import Method, Plan, StepReport
from dbbench.suite.cell import Cell
from dbbench.tasks.base import Task

_Values = dict[str, Tensor]


def check_method(cell: Cell, tell: Callable[[str], None] = lambda line: None) -> None:
    """Train ``cell``'s method for two steps a block and raise AssertionError at the first promise that is broken.

    Checked: shapes and types; that a step changes only what `may_change` says, releases its gradients and leaves on
    the device what `residents` says; that predictions are normalised and disturb nothing; that a run repeats bit for
    bit, goes on from a saved state as if never stopped, and follows its seed; that all of it works on fake tensors, if
    the method does not say that it cannot. ``tell`` gets a line for each that held.
    """
    resolved = resolve_cell(cell, cell.suite)
    task = resolved.load_task()
    watched = _Run(resolved, task)
    watched.check_shapes()
    tell("split and plan give whole blocks that sum to the depth, and model holds every parameter")
    for plan in watched.plans:
        watched.check_step(plan)
    tell(f"{len(watched.plans)} steps report true counts, change only what may_change says, and leave no gradient")
    watched.check_predictions()
    tell("predict gives what the task asks for, the same when asked again, and changes nothing")
    plain = _Run(resolved, task)
    plain.train(plain.plans)
    plain.require_equal(_parameters(watched.method), "the same steps again, unwatched, end in other parameters")
    tell("the same steps end in the same parameters, bit for bit")
    _check_resumption(resolved, task, _parameters(plain.method))
    tell("saved half-way, loaded and continued, it ends in the same parameters")
    other = _Run(resolve_cell(cell.model_copy(update={"seed": cell.seed + 1}), cell.suite), task)
    other.train(other.plans)
    differs = _changed(_parameters(plain.method), _parameters(other.method))
    _require(bool(differs), cell, "another seed ends in the same parameters")
    tell("another seed ends in other parameters")
    if resolved.method.not_on_fakes:
        tell(f"not checked on fake tensors: {resolved.method.not_on_fakes}")
    else:
        _check_on_fake_tensors(resolved, task)
        tell("it runs on fake tensors, so that its memory can be estimated")


def _check_resumption(resolved: Resolved, task: Task, uninterrupted: _Values) -> None:
    first, second = _Run(resolved, task), _Run(resolved, task)
    half = len(first.plans) // 2
    first.train(first.plans[:half])
    second.method.load(copy.deepcopy(first.method.state()))
    second.train(second.plans[half:])
    second.require_equal(uninterrupted, f"saved after step {half}, loaded and continued, it ends in other parameters")


def _check_on_fake_tensors(resolved: Resolved, task: Task) -> None:
    try:
        with FakeTensorMode():
            run = _Run(resolved, task)
            run.train(run.plans)
            inputs = task.train_batch(0).inputs
            with torch.no_grad():
                prediction = run.method.predict(inputs)[""]
    except Exception as error:
        message = f"does not run on fake tensors: {type(error).__name__}: {error}"
        raise AssertionError(f"{resolved.cell.method}: {message}") from error
    expected = task.prediction_shape
    _require(
        isinstance(prediction, FakeTensor) and prediction.shape == expected,
        resolved.cell,
        f"predicts {tuple(prediction.shape)} on fake tensors, not {expected}",
    )


class _Run:
    """A method freshly built, the loop around it, and the steps that visit every block twice."""

    def __init__(self, resolved: Resolved, task: Task) -> None:
        self.cell, self.task = resolved.cell, task
        self.method = resolved.build(task)
        self.loop = Loop(self.method, task, resolved.cell)
        self.plans = [plan for plan, _ in rehearsal(self.method)]

    def train(self, plans: list[Plan]) -> None:
        for plan in plans:
            self.loop.step(plan)

    def require(self, condition: bool, message: str) -> None:
        _require(condition, self.cell, message)

    def require_equal(self, expected: _Values, message: str) -> None:
        differs = _changed(_parameters(self.method), expected)
        self.require(not differs, f"{message}: {some(differs)}")

    def check_shapes(self) -> None:
        method, depth = self.method, self.method.network.depth
        layers = method.layers_per_block
        self.require(len(layers) == method.blocks, f"blocks is {method.blocks}, layers_per_block {layers}")
        self.require(sum(layers) == depth, f"layers_per_block {layers} does not sum to the network's {depth}")
        known = {id(p) for p in method.model.parameters()}
        optimised = [p for o in method.optimizers for group in o.param_groups for p in group["params"]]
        everything = [*method.network.parameters(), *optimised]
        self.require(all(id(p) in known for p in everything), "model does not hold every parameter that is used")
        for step, fraction in enumerate((0.0, 0.4, 0.999)):
            block, again = method.plan(step, fraction), method.plan(step, fraction)
            self.require(type(block) is int, f"plan gives a {type(block).__name__}, not an int on the host")
            self.require(block == again, f"plan({step}, {fraction}) gives {block}, then {again}")
            self.require(0 <= block < method.blocks, f"plan gives block {block} of {method.blocks}")

    def check_step(self, plan: Plan) -> None:
        method = self.method
        before, optimizer_before = _parameters(method), _optimizer_state(method)
        batch = self.task.train_batch(plan.block_step)
        torch.manual_seed(method.setting.streams.key("global", plan.block, plan.block_step))  # as the loop does
        report = method.step(batch, plan)
        here = f"step {plan.step} (block {plan.block})"
        self._check_report(report, plan, here)
        named = dict(method.model.named_parameters())
        graded = {name for name, p in named.items() if p.grad is not None}
        self.require(not graded, f"{here} leaves gradients behind: {some(graded)}")
        resident = {name for name, p in named.items() if p.numel()}
        wrong = resident ^ method.residents(plan)
        self.require(not wrong, f"{here}: residents is not what is on the device: {some(wrong)}")
        changed, allowed = _changed(before, _parameters(method)), method.may_change(plan)
        self.require(bool(changed), f"{here} changes no parameter")
        self.require(changed <= allowed, f"{here} changes what may_change rules out: {some(changed - allowed)}")
        state = _optimizer_state(method)
        touched = {name for name, value in state.items() if not _same(value, optimizer_before.get(name))}
        outside = {name for name in touched if name.rpartition(" ")[0] not in allowed}
        self.require(not outside, f"{here} changes optimizer state that may_change rules out: {some(outside)}")

    def _check_report(self, report: StepReport, plan: Plan, here: str) -> None:
        problem = report_problem(report, self.method.layers_per_block[plan.block], self.cell.batch_size)
        self.require(not problem, f"{here} {problem}")
        self.require(math.isfinite(report.loss.item()), f"{here}: loss is {report.loss.item()}")

    def check_predictions(self) -> None:
        method, inputs = self.method, self.task.train_batch(0).inputs
        before = _parameters(method)
        with torch.no_grad():
            ways, again, own = method.predict(inputs), method.predict(inputs), method.predict_own(inputs)
        self.require("" in ways, f"predict has no way '' (its own), only {sorted(ways)}")
        self.require(torch.equal(own, ways[""]), "predict_own is not predict's ''")
        for way, values in ways.items():
            problem = prediction_problem(self.task, self.task.batch_size, values)
            self.require(not problem, f"predict['{way}'] {problem}")
            self.require(torch.equal(values, again[way]), f"predict['{way}'] differs when asked again")
        self.require_equal(before, "predict changes parameters")


def _require(condition: bool, cell: Cell, message: str) -> None:
    if not condition:
        raise AssertionError(f"{cell.method}: {message}")


def _parameters(method: Method) -> _Values:
    saved = method.state()["model"]
    return {name: saved[name].clone() for name, _ in method.model.named_parameters()}


def _optimizer_state(method: Method) -> dict[str, Any]:
    """Return a copy of every optimizer's state by "parameter key"; `Method.state` has brought it onto the device."""
    names = {id(p): name for name, p in method.model.named_parameters()}
    return {
        f"{names[id(p)]} {key}": copy.deepcopy(value)
        for optimizer in method.optimizers
        for p, state in optimizer.state.items()
        for key, value in state.items()
    }


def _same(value: Any, other: Any) -> bool:
    return torch.equal(value, other) if isinstance(value, Tensor) and isinstance(other, Tensor) else value == other


def _changed(values: _Values, others: _Values) -> set[str]:
    return {name for name, value in values.items() if not torch.equal(value, others[name])}
