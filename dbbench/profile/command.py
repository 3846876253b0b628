"""``dbbench profile``: the memory, FLOPs and time of a step that somebody's own module makes.

    profile, frame = profile_step("my_package.train:make_step", device="cpu")

Up to three passes, each on a model made anew from the same seed: under the ledger, which is opened before anything is
made; under the device allocator's own watch; and a few steps on the clock. Fake tensors take the first alone.
"""

from __future__ import annotations

import gc
import types
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from torch import Tensor

from dbbench.errors import BadInput
from dbbench.profile.fake import fake_tensors, needs_data
from dbbench.profile.ledger import Ledger, named
from dbbench.profile.target import Built, build, default_device, in_words, load_target
from dbbench.profile.untraced import Untraced, rate_of, run_untraced
from dbbench.results.profile import Profile

Where = Literal["cpu", "cuda", "fake"]


def profile_step(
    target: str,
    *,
    steps: int = 1,
    warmup: int = 1,
    device: Where = "cpu",
    timed_steps: int = 3,
    peak_flops: float | None = None,
    snapshot: Path | None = None,
) -> tuple[Profile, pd.DataFrame]:
    """Profile ``steps`` training steps of ``target`` after ``warmup`` others; return (profile, classified events).

    ``target`` is ``module:callable`` or ``file.py:callable`` (`dbbench.profile.target`). ``peak_flops``, in FLOP/s,
    takes the place of the table's rate for the device. ``snapshot`` is a file for the CUDA allocator's history.

    A step that raises ends the profiling: the profile is of what ran until then, and its ``ended_early`` says why.
    Raises BadInput where the target is not what it should be, and where a fake step asks for data.
    """
    if snapshot is not None and device != "cuda":
        raise BadInput(f"--snapshot: only CUDA's allocator keeps a history, and the device is {device}")
    if peak_flops is not None and device == "fake":
        raise BadInput("--peak-flops: fake tensors take no time, so there is no utilization")
    if peak_flops is not None and not peak_flops > 0:
        raise BadInput(f"--peak-flops: {peak_flops:g} FLOP/s is no rate")
    make = load_target(target)
    profile, frame = _traced(make, device, target, steps, warmup)
    gc.collect()  # the first pass's model is not to be in the second one's account
    if device == "fake" or profile.ended_early is not None:
        return profile, frame
    found = run_untraced(make, device, target, steps=steps, warmup=warmup, timed_steps=timed_steps, snapshot=snapshot)
    return profile.model_copy(update=_figures(profile, found, peak_flops)), frame


def _traced(
    make: Callable[..., Any], device: Where, target: str, steps: int, warmup: int
) -> tuple[Profile, pd.DataFrame]:
    """Make everything and take the steps under a ledger."""
    real = "cpu" if device == "fake" else device
    failure, uncounted = None, dict[str, int]()
    with fake_tensors() if device == "fake" else nullcontext():
        ledger = Ledger(device=real, census=False)
        try:
            with default_device(make, real), ledger:
                built = build(make, real, target)
                _declare(ledger, built)
                _as_theirs(_warm_up, make)(built.step, warmup)
                uncounted = ledger.uncounted
                _as_theirs(_train, make)(built.step, ledger, range(warmup, warmup + steps))
        except Exception as error:
            line = needs_data(error) if device == "fake" else None
            if line is not None:
                raise BadInput(line) from error
            if isinstance(error, BadInput):
                raise
            failure = in_words(error)
    profile = ledger.profile(target)
    calls = {op: count - uncounted.get(op, 0) for op, count in profile.uncounted.items()}
    update = {"uncounted": {op: count for op, count in calls.items() if count}, "ended_early": failure}
    return profile.model_copy(update=update), ledger.timeline()


def _declare(ledger: Ledger, built: Built) -> None:
    def others() -> Iterable[tuple[str, str, Tensor]]:
        yield from named("inputs", "inputs", built.inputs)
        yield from named("ema", "ema", built.ema)

    for i, (name, model) in enumerate(built.models.items()):
        if i == len(built.models) - 1:  # when the parameters of all have their names
            ledger.watch(model, lambda: built.optimizers, others, name)
        else:
            ledger.watch(model, name=name)


def _warm_up(step: Callable[[], Any], times: int) -> None:
    for _ in range(times):
        step()


def _train(step: Callable[[], Any], ledger: Ledger, numbers: range) -> None:
    for number in numbers:
        with ledger.step(number):
            step()


def _as_theirs(function: Callable[..., None], make: Callable[..., Any]) -> Callable[..., None]:
    """Return ``function`` as if it stood in ``make``.

    What a step keeps from one call to the next hangs on the step itself. The ledger names holders by the variables of
    running functions, and ours are none of them; so the one that holds the step passes for the one that made it.
    """
    name = getattr(make, "__qualname__", type(make).__qualname__)
    code = function.__code__.replace(co_name=name.rpartition(".")[2], co_qualname=name)
    return types.FunctionType(code, function.__globals__ | {"__name__": make.__module__}, name)


def _figures(profile: Profile, found: Untraced, peak_flops: float | None) -> dict[str, Any]:
    """Return the profile's fields that the untraced passes give."""
    notes = list(profile.notes)
    rate, source = peak_flops, "given by --peak-flops"
    if peak_flops is None and found.flops:
        rate, source = rate_of(torch.cuda.get_device_name(), found.flops)
        if rate is None:
            notes.append(f"no MFU: {source}")
    if found.failure is not None:
        notes.append(found.failure)
    return {
        "device_figures": found.figures,
        "seconds_per_step": found.seconds_per_step,
        "peak_flops_per_second": rate,
        "peak_flops_source": source if rate is not None else None,
        "notes": notes,
    }
