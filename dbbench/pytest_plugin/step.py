"""A training step measured alone: trained once for warming up, then once more, which is what counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from dbbench.errors import BadInput
from dbbench.profile.target import check_step, training_of
from dbbench.pytest_plugin.finding import reached_from
from dbbench.pytest_plugin.watching import WatchingLedger, cuda_noticed, device_of, require_seen


def measured_step(step: Any, given: Mapping[str, Any], warmup: int, device: Any, where: str) -> WatchingLedger:
    """Train ``warmup`` steps and then one under a ledger, which is returned.

    ``step`` is a callable or a training (`dbbench.profile.target.training_of`); ``given`` has its model, optimizer,
    inputs and ema, None where they are not given: then the model that is called and the optimizer that steps are
    found. The ledger is open from before the first step: what a step touches counts, what it makes, and what is given;
    another method's model in the same test does not. Raises BadInput for what is no step, and where nothing could be
    seen.
    """
    __tracebackhide__ = True
    parts = {name: value for name, value in given.items() if value is not None}
    if not callable(step):
        training = training_of(step, "assert_peak")
        step = training.step
        parts = {name: value for name in given if (value := parts.get(name, getattr(training, name))) is not None}
    check_step(step, "assert_peak")
    if device is None:
        reached = reached_from({**_globals_of(step), "step": step, "model": parts.get("model")})
        device = device_of(reached)
        del reached
    ledger = WatchingLedger(device=device, find="model" not in parts, whole=False)
    with cuda_noticed() as on_cuda, ledger:
        ledger.follow(**parts)
        ledger.search(step, "step", where)
        for _ in range(warmup):
            _refuse_a_maker(step())
        with ledger.step():
            step()
    require_seen(ledger, on_cuda(), "assert_peak")
    return ledger


def _globals_of(step: Any) -> dict[str, Any]:
    """Return the variables of its module that the function ``step`` names."""
    function = getattr(step, "__func__", step)
    code, table = getattr(function, "__code__", None), getattr(function, "__globals__", {})
    return {name: table[name] for name in code.co_names if name in table} if code is not None else {}


def _refuse_a_maker(result: Any) -> None:
    if isinstance(result, tuple) and len(result) > 2 and isinstance(result[0], nn.Module) and callable(result[2]):
        raise BadInput("assert_peak: step() made (model, optimizer, step) instead of training; give what it makes")
