"""A training step measured alone: trained once for warming up, then once under a ledger."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from dbbench.errors import BadInput
from dbbench.profile.ledger import by_name
from dbbench.profile.target import check_step, training_of
from dbbench.pytest_plugin.finding import Finder, Reached
from dbbench.pytest_plugin.watching import Baseline, WatchingLedger, cuda_noticed, device_of, require_seen


def measured_step(step: Any, given: Mapping[str, Any], warmup: int, device: Any, where: str) -> WatchingLedger:
    """Train ``warmup`` steps and then one under a ledger, which is returned.

    ``step`` is a callable or a training (`dbbench.profile.target.training_of`); ``given`` has its model, optimizer,
    inputs and ema, None where they are not given. What nobody gives the steps before show. Of what was there before
    the first of them, only that counts which the traced one touches or which is given: another method's model in the
    same test does not. Raises BadInput for what is no step, and where nothing could be seen.
    """
    __tracebackhide__ = True
    parts = {name: value for name, value in given.items() if value is not None}
    if not callable(step):
        training = training_of(step, "assert_peak")
        step = training.step
        parts = {name: value for name in given if (value := parts.get(name, getattr(training, name))) is not None}
    check_step(step, "assert_peak")
    before, finder = Baseline(), Finder()
    finder.open()
    try:
        for _ in range(warmup):
            _refuse_a_maker(step())
    finally:
        finder.close()
    models = by_name(parts["model"]) if "model" in parts else dict(finder.models())
    ledger = WatchingLedger(
        **parts,
        found=finder if "model" not in parts else None,
        device=device or device_of(Reached(modules=models)),
        census=before.is_new,
    )
    del models, parts
    with cuda_noticed() as on_cuda, ledger:
        ledger.search(step, "step", where)
        step()
    require_seen(ledger, on_cuda(), "assert_peak")
    return ledger


def _refuse_a_maker(result: Any) -> None:
    if isinstance(result, tuple) and len(result) > 2 and isinstance(result[0], nn.Module) and callable(result[2]):
        raise BadInput("assert_peak: step() made (model, optimizer, step) instead of training; give what it makes")
