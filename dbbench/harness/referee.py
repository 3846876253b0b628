"""What a method says of itself, held against what is seen: every report of a step, every prediction, and now and then
all that a step has changed.

A run believes no method. Each evaluation batch must be predicted as the task says; the counts in a report must be those
of the plan, and of what the step really updated; a prediction must come from its own sample, and of a text from nothing
behind it. The first that is not so raises `BrokenContract`, and the cell fails with its words. All of it happens off
the clock, except for a few comparisons of Python numbers a step.

What cannot be seen: a method that finds the data by a way of its own (a closure, a file), or that keeps what it has
predicted. The documentation lists it.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dbbench.errors import BrokenContract, Diverged
from dbbench.foreign import kind_of
from dbbench.methods.base import Method, Plan, StepReport
from dbbench.results.sound import broken_bound
from dbbench.tasks.base import Batch, Metric, Products, Split, Task

#: How far the probabilities of a float32 log-softmax may sum from one, in log space.
NORMALISED = 1e-4
#: How far two predictions of the same sample may lie apart when others of its batch are exchanged: rounding alone.
SAME_PREDICTION = {"fp32": 1e-4, "bf16": 3e-2, "autocast_bf16": 3e-2}
#: What a task is asked for by the harness alone, and what no method may replace.
_JUDGES = ("evaluate", "evaluation_batches", "train_batch", "measure", "figures", "after_training")

Predict = Callable[[Any], dict[str, Tensor]]


@contextmanager
def method_speaks(task: Task, may_train: bool = True) -> Iterator[None]:
    """Run a method's code inside: its task refuses it the splits to evaluate on, and in a step more training batches.

    Raises BrokenContract where it asks for them.
    """

    def evaluation_batches(split: Split) -> Iterator[Batch]:
        raise BrokenContract(f"the method reads the {split} split, which is not a method's to read")

    def train_batch(index: int) -> Batch:
        raise BrokenContract("a step draws a training batch more than the one that it was given")

    refused: dict[str, Any] = {"evaluation_batches": evaluation_batches}
    refused |= {} if may_train else {"train_batch": train_batch}
    vars(task).update(refused)
    try:
        yield
    finally:
        for name, refusal in refused.items():
            if vars(task).get(name) is refusal:
                del vars(task)[name]


def report_problem(report: Any, layers: int, samples: int) -> str:
    """Say what is wrong with what a step returned, '' for nothing; ``layers`` and ``samples`` are what it was given."""
    if not isinstance(report, StepReport):
        return f"returns {kind_of(report)}, not a StepReport"
    loss = report.loss
    if not isinstance(loss, Tensor) or loss.dim():
        shown = f"a tensor of shape {list(loss.shape)}" if isinstance(loss, Tensor) else kind_of(loss)
        return f"reports {shown} as its loss, not a scalar tensor"
    if loss.requires_grad:
        return "reports a loss that is not detached: its graph would be kept"
    if type(report.layers_updated) is not int or report.layers_updated != layers:
        return f"reports {report.layers_updated!r:.40} layers updated, and its block has {layers}"
    if type(report.samples) is not int or report.samples != samples:
        return f"reports {report.samples!r:.40} samples, and was given {samples}"
    return ""


def prediction_problem(task: Task, samples: int, prediction: Any) -> str:
    """Say what is wrong with a prediction for ``samples`` samples of ``task``, '' for nothing."""
    expected = (samples, *task.prediction_shape[1:])
    if not isinstance(prediction, Tensor):
        return f"is {kind_of(prediction)}, not a tensor"
    if tuple(prediction.shape) != expected:
        return f"has the shape {list(prediction.shape)}, not {list(expected)}"
    if not prediction.is_floating_point():
        return f"is of {prediction.dtype}, not of floating-point numbers"
    if task.predicts != "distribution":
        return "" if torch.isfinite(prediction).all() else _NOT_FINITE
    off = prediction.float().logsumexp(dim=-1).abs().max().item()
    if off != off:
        return _NOT_FINITE
    return "" if off < NORMALISED else f"is no log-probability: the logarithm of its sum is off by {off:.2g}"


_NOT_FINITE = "is no finite number"


def bound_problem(metric: Metric, value: float) -> str:
    """Say which bound of ``metric`` a value breaks, '' for none; what rounding does is let pass."""
    bound = broken_bound(value, metric.lowest, metric.highest)
    return f"{metric.name} is {value:.6g}, and cannot be {bound}" if bound else ""


@dataclass
class _Look:
    """One step looked at closely: fingerprints of the parameters before it, and what optimizers updated in it."""

    plan: Plan
    before: dict[str, int]
    updates: Counter[int] = field(default_factory=Counter)
    hooks: list[Any] = field(default_factory=list)


class Referee:
    """Watches one cell's training and evaluations. `step` and `evaluate` are what the harness calls for the method's.

    ``looks`` counts the steps that were looked at closely: the first, and ever fewer, at moments that the seed draws.
    """

    def __init__(self, method: Method, task: Task, precision: str = "fp32", seed: int = 0) -> None:
        self.method, self.task = method, task
        self.looks = 0
        self._tolerance = SAME_PREDICTION[precision]
        self._moments, self._next = random.Random(seed), 0
        self._layer_of = {id(p): i for i, layer in enumerate(method.network.layers) for p in layer.parameters()}
        self._most_updated: Counter[int] = Counter()
        self._look: _Look | None = None
        self._classes = {name: getattr(type(task), name) for name in _JUDGES}

    # -- training ------------------------------------------------------------------------------------------------------

    def step(self, plan: Plan) -> StepReport:
        """Take a step of the method on its batch, and return its report; BrokenContract where that is not true."""
        batch = self.task.train_batch(plan.block_step)
        with method_speaks(self.task, may_train=False):
            report = self.method.step(batch, plan)
        problem = report_problem(report, self.method.layers_per_block[plan.block], batch.samples)
        if problem:
            raise BrokenContract(f"step {plan.step} (block {plan.block}) {problem}")
        return report

    def is_due(self, step: int) -> bool:
        """Whether the step is one to look at closely."""
        return step >= self._next

    def look(self, plan: Plan) -> None:
        """Begin to look at the step under ``plan``: to be called just before it."""
        self._look = look = _Look(plan, self._fingerprints())
        for optimizer in self.method.optimizers:
            look.hooks.append(optimizer.register_step_pre_hook(partial(self._count, look)))

    def judge(self) -> None:
        """Hold the step that was looked at against its plan: just after it. Raises BrokenContract."""
        look, self._look = self._look, None
        assert look is not None
        self.looks += 1
        self._next = look.plan.step + 1 + self._moments.randint(0, look.plan.step + 1)
        for hook in look.hooks:
            hook.remove()
        plan, here = look.plan, f"step {look.plan.step} (block {look.plan.block})"
        after = self._fingerprints()
        changed = {name for name, mark in after.items() if name in look.before and look.before[name] != mark}
        allowed = self.method.may_change(plan)
        if not changed <= allowed:
            raise BrokenContract(f"{here} changes what may_change rules out: {some(changed - allowed)}")
        named = dict(self.method.model.named_parameters())
        touched = {self._layer_of[id(named[name])] for name in changed if id(named[name]) in self._layer_of}
        each: Counter[int] = Counter()
        for parameter, times in look.updates.items():
            if parameter in self._layer_of:
                layer = self._layer_of[parameter]
                each[layer] = max(each[layer], times)
        updated = max(sum(each.values()), len(touched))
        expected = self.method.layers_per_block[plan.block]
        if updated > expected:
            raise BrokenContract(f"{here} reports {expected} layers updated, and it updates {updated}")
        self._most_updated[plan.block] = max(self._most_updated[plan.block], updated)

    def end(self) -> None:
        """Hold the whole training against its plan, when it has ended. Raises BrokenContract."""
        for block, updated in self._most_updated.items():
            expected = self.method.layers_per_block[block]
            if updated < expected:
                raise BrokenContract(
                    f"block {block} reports {expected} layers updated a step, and no more than {updated} are"
                )
        replaced = [name for name in _JUDGES if getattr(type(self.task), name) is not self._classes[name]]
        replaced += [name for name in _JUDGES if name in vars(self.task)]
        if replaced:
            raise BrokenContract(f"the method replaces '{replaced[0]}' of its task")

    def _count(self, look: _Look, optimizer: torch.optim.Optimizer, *arguments: Any) -> None:
        for group in optimizer.param_groups:
            look.updates.update(id(p) for p in group["params"] if p.grad is not None)

    def _fingerprints(self) -> dict[str, int]:
        """Return a number for each parameter that is here, which changes with any of its values."""
        here = [(name, p) for name, p in self.method.model.named_parameters() if p.numel()]
        with torch.no_grad():
            marks = [torch.hash_tensor(p).view(torch.int64) for _, p in here]
        return dict(zip([name for name, _ in here], torch.stack(marks).tolist() if marks else [], strict=True))

    # -- evaluation ----------------------------------------------------------------------------------------------------

    def evaluate(self, split: Split, predict: Predict, closely: bool = False) -> dict[str, dict[str, float]]:
        """Return the task's figures on ``split``, every prediction checked.

        ``closely`` also asks about one batch anew, with others in the place of its samples' neighbours and of a text's
        later tokens, and looks whether predicting changes a parameter. Raises BrokenContract, and Diverged where a
        prediction is not finite.
        """
        before = self._fingerprints() if closely else {}
        first = True

        def checked(inputs: Any) -> dict[str, Tensor]:
            nonlocal first
            with method_speaks(self.task):
                ways = predict(inputs)
                self._check_ways(split, inputs, ways)
                if closely and first:
                    self._question(split, inputs, ways[""])
            first = False
            return ways

        figures = self.task.evaluate(split, checked)
        after = self._fingerprints() if closely else {}
        changed = {name for name in before.keys() & after.keys() if before[name] != after[name]}
        if changed:
            raise BrokenContract(f"predict changes parameters: {some(changed)}")
        for way, values in figures.items():
            for metric in self.task.metrics:
                problem = bound_problem(metric, values[metric.name]) if metric.name in values else ""
                if problem:
                    raise BrokenContract(f"{_named('predict', way)} on the {split} split: {problem}")
        return figures

    def after_training(self, split: Split) -> Products | None:
        """Return what the task has the trained method make, its figures held against their bounds."""
        made = self.task.after_training(split, self._spoken)
        for way, figures in (made.figures if made is not None else {}).items():
            for metric in made.metrics if made is not None else ():
                problem = bound_problem(metric, figures[metric.name]) if metric.name in figures else ""
                if problem:
                    raise BrokenContract(f"what is made by '{way}': {problem}")
        return made

    def _spoken(self, inputs: Any) -> Tensor:
        with method_speaks(self.task):
            return self.method.predict_own(inputs)

    def _check_ways(self, split: Split, inputs: Any, ways: Any) -> None:
        if not isinstance(ways, Mapping) or "" not in ways:
            shown = f"only {sorted(map(str, ways))}" if isinstance(ways, Mapping) else kind_of(ways)
            raise BrokenContract(f"predict gives {shown}, not a dict with '', the method's own prediction")
        samples = _samples(inputs)
        for way, prediction in ways.items():
            problem = prediction_problem(self.task, samples, prediction)
            if problem == _NOT_FINITE:
                raise Diverged(f"{_named('predict', way)} on the {split} split {problem}")
            if problem:
                raise BrokenContract(f"{_named('predict', way)} on the {split} split {problem}")

    def _question(self, split: Split, inputs: Any, said: Tensor) -> None:
        """Ask the method about the same samples again, and among others."""
        here = f"predict on the {split} split"
        if not self._alike(said, self.method.predict_own(inputs)):
            raise BrokenContract(f"{here} differs when it is asked again")
        half = len(said) // 2
        if half:
            order = torch.arange(len(said), device=said.device)
            order[half:] %= half
            among_others = _each(inputs, lambda t: t[order.to(t.device)])
            if not self._alike(said[:half], self.method.predict_own(among_others)[:half]):
                raise BrokenContract(f"{here} of a sample depends on the others of its batch")
        if self.task.causal and isinstance(inputs, Tensor) and inputs.shape[1] > 1:
            seen = inputs.shape[1] // 2
            other = inputs.clone()
            other[:, seen:] = (other[:, seen:] + 1) % self.task.shape.classes
            if not self._alike(said[:, :seen], self.method.predict_own(other)[:, :seen]):
                raise BrokenContract(f"{here} of a token depends on the tokens behind it")

    def _alike(self, one: Tensor, other: Tensor) -> bool:
        return torch.allclose(one.float(), other.float(), rtol=self._tolerance, atol=self._tolerance)


def _samples(inputs: Any) -> int:
    found: list[int] = []

    def count(t: Tensor) -> Tensor:
        found.append(len(t))
        return t

    _each(inputs, count)
    return found[0]


def _each(inputs: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return ``inputs`` with every tensor in it changed."""
    if isinstance(inputs, Tensor):
        return change(inputs)
    if isinstance(inputs, Mapping):
        return {key: _each(value, change) for key, value in inputs.items()}
    if isinstance(inputs, (list, tuple)):
        return type(inputs)(_each(value, change) for value in inputs)
    if is_dataclass(inputs) and not isinstance(inputs, type):
        return replace(inputs, **{f.name: _each(getattr(inputs, f.name), change) for f in fields(inputs)})
    return inputs


def _named(what: str, way: str) -> str:
    return f"{what}['{way}']" if way else what


def some(names: set[str]) -> str:
    """Return the first of some names, and how many there are besides."""
    listed = sorted(names)
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")
