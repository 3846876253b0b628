"""``dbbench.Ledger``: the memory of anybody's training step, by role, module and op.

with dbbench.Ledger(model, optimizer, inputs=batch) as ledger:
    loss = model(**batch).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
print(ledger.peak)
print(ledger.table())
ledger.plot("step.png")
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

import dbbench
from dbbench.errors import BadInput
from dbbench.measure.account import Account
from dbbench.measure.census import MOST_LOOKED_AT, copies_of
from dbbench.measure.ledger import BareLedger, Census, collector_at_rest
from dbbench.measure.optimizers import tensors_in
from dbbench.measure.private import FakeTensor, in_fake_mode
from dbbench.profile.table import MemoryTable
from dbbench.report.diff import Diff, diff
from dbbench.results.profile import Profile, StepFigures, read_profile
from dbbench.results.record import Held
from dbbench.results.trace import Window

Models = nn.Module | Sequence[nn.Module] | Mapping[str, nn.Module]
Optimizers = torch.optim.Optimizer | Sequence[torch.optim.Optimizer] | Mapping[str, torch.optim.Optimizer]


@dataclass(frozen=True)
class Peak:
    """The largest number of live bytes at any instant of the step, and what they are.

    ``split`` is by role and sums to ``bytes``; ``held`` is by role, module, op and holder, largest first, and sums to
    it too. ``module`` and ``op`` made the allocation that reached it.
    """

    bytes: int
    phase: str | None
    step: int | None
    block: int | None
    module: str
    op: str
    split: dict[str, int]
    held: list[Held]

    def __str__(self) -> str:
        parts = sorted(((size, role) for role, size in self.split.items() if size), reverse=True)
        split = ", ".join(f"{role.replace('_', ' ')} {size / 2**20:.2f}" for size, role in parts)
        where = f"{self.phase}, step {self.step}, {self.op or 'before any op'}" + (
            f" in {self.module}" if self.module else ""
        )
        return f"{self.bytes / 2**20:.2f} MiB ({self.bytes:,} bytes) in {where}: {split} MiB"


class Ledger(BareLedger):
    """Records what runs inside ``with`` and says what every live byte of it was for.

    ``model`` is a module, a list of them or a dict by name; ``optimizer`` likewise. ``inputs`` (tensors, however
    nested) and ``ema`` (a module, or tensors) get roles of their own. The whole body counts as one training step unless
    `step` marks some, or several optimizer steps show that there are more (`dbbench.measure.several_steps`).
    ``device`` is ``cpu`` or ``cuda``, by default where the model's parameters are; the parameters of a model made under
    ``FakeTensorMode`` show that the step is fake, and ``fake`` says so where no model is given. With ``census`` it
    takes in what exists already: ``"variables"`` (the default where a model is given) what variables of the running
    functions and of modules lead to, in milliseconds; ``True`` every tensor that Python can see, in a tenth of a second
    and more; a function those of them for which it is true. Frozen copies of the model count as ``ema``. With
    ``collect`` Python's cycle collector runs in full before each step, which takes about 0.2 s; without, over young
    objects alone, so that tensors which died in a cycle long ago count until it has run.
    ``strict`` raises `dbbench.measure.flops.UncountedOps` for an op whose FLOPs it cannot count.

    Raises BadInput for a compiled model, and for a figure asked for while there is none yet.
    """

    def __init__(
        self,
        model: Models | None = None,
        optimizer: Optimizers | None = None,
        *,
        inputs: Any = None,
        ema: Any = None,
        device: Literal["cpu", "cuda", "fake"] | torch.device | None = None,
        census: Census | None = None,
        strict: bool = False,
        collect: bool = False,
    ) -> None:
        self._models: dict[str, nn.Module] = {}
        self._optimizers: list[torch.optim.Optimizer] = []
        self._name = "a step"
        self._given = model, optimizer, inputs, ema
        first = next((p for m in by_name(model).values() for p in m.parameters()), None)
        fake = device == "fake" or isinstance(first, FakeTensor) or (first is None and in_fake_mode())
        where = first.device if first is not None else None
        if device is not None:
            where = torch.device("cpu" if device == "fake" else device)
        device_type = "cpu" if where is None else where.type
        if device_type not in ("cpu", "cuda"):
            raise BadInput(f"device '{device_type}': the ledger counts the bytes of cpu and cuda")
        default: Census = "variables" if model is not None else False
        super().__init__(
            device_type, fake=fake, census=default if census is None else census, strict=strict, collect=collect
        )
        self._whole_body = ExitStack()
        self._accounted: tuple[tuple[int, int], Account] | None = None

    def __enter__(self) -> Self:
        super().__enter__()
        try:
            self.follow(*self._given)
            if self._models:
                self._begin(just_declared=True)
                self._rest_collector()
        except BaseException as error:
            super().__exit__(type(error), error, None)
            raise
        finally:
            self._given = None, None, None, None
            self._modules_before.clear()
        return self

    def _rest_collector(self) -> None:
        """Let the cycle collector run, and then not before the body ends or marks a step."""
        gc.collect(2 if self._collect else 1)
        self._whole_body.enter_context(collector_at_rest())

    def _declared(self) -> Iterable[Any]:
        return [thing for given in self._given[:2] for thing in by_name(given).values()]

    def follow(
        self, model: Models | None = None, optimizer: Optimizers | None = None, inputs: Any = None, ema: Any = None
    ) -> None:
        """Declare what is trained, as the constructor takes it: for what was made after the ledger opened."""
        models = by_name(model)
        self._models |= models
        self._optimizers += by_name(optimizer).values()
        averages = list(copies_of(models.values(), self._modules_before))

        def others() -> Iterable[tuple[str, str, Tensor]]:
            yield from _named("ema", "ema", ema)
            for name, module in averages:
                yield from _named("ema", name, module)

        self.watch(models, lambda: self._optimizers, others)
        if inputs is not None:
            self.declare("inputs", "inputs", inputs)
        if models:
            self._name = ", ".join(type(one).__name__ for one in self._models.values())

    def __exit__(self, kind: Any, error: BaseException | None, *details: object) -> None:
        self._whole_body.close()
        try:
            super().__exit__(kind, error, *details)
        finally:  # a ledger that is kept is not to keep the model
            self._models, self._optimizers = {}, []

    @contextmanager
    def step(self, step: int | None = None, block: int = 0, kind: str = "step") -> Iterator[None]:
        """Measure what runs inside as one training step; by default it gets the next number, from 0.

        ``block`` says which part of the network it trains, for methods that train one at a time. With
        ``kind='inference'`` it is a prediction, which has no part in the peak.
        """
        self._whole_body.close()  # the steps are marked, so the body is not one
        with super().step(step, block, kind):
            yield

    # -- figures ------------------------------------------------------------------------------------------------

    def account(self) -> Account:
        """Return the figures as plain numbers, computed once for what has been recorded so far."""
        recorded = len(self.trace.event_op), len(self.trace.windows)
        if self._accounted is None or self._accounted[0] != recorded:
            self._accounted = recorded, super().account()
        return self._accounted[1]

    @property
    def peak(self) -> Peak:
        """The peak of the steps so far; of the whole body once the ``with`` has ended, where no step was marked."""
        self._require_a_step()
        found = self.account()
        return Peak(
            found.peak_bytes,
            found.peak_phase,
            found.peak_step,
            found.peak_block,
            found.peak_module,
            found.peak_op,
            found.split,
            found.held,
        )

    def profile(self, name: str | None = None) -> Profile:
        """Return all that the ledger knows as one model, which `save` keeps; ``name`` says what was profiled."""
        self._require_a_step()
        found = self.account()
        steps = [
            _figures(window, most, flops)
            for (window, most), (_, flops) in zip(found.window_peaks, self.flops, strict=True)
            if _is_step(window)
        ]
        return Profile(
            name=name or self._name,
            source="fake" if self.trace.device == "fake" else self.trace.device,  # type: ignore[arg-type]
            device=torch.cuda.get_device_name() if self.trace.device == "cuda" else "cpu",
            torch_version=torch.__version__,
            dbbench_version=dbbench.__version__,
            peak_bytes=found.peak_bytes,
            peak_phase=found.peak_phase,
            peak_step=found.peak_step,
            peak_block=found.peak_block,
            peak_module=found.peak_module,
            peak_op=found.peak_op,
            split=found.split,
            own_peaks=found.own_peaks,
            held=found.held,
            resident_bytes=found.resident_bytes,
            undeclared_bytes=found.undeclared_bytes,
            kept_bytes=found.kept_bytes,
            steps=steps,
            attention=self.attention,
            uncounted=self.uncounted,
            unmeasured_work=self.unmeasured_work,
            ended_early=self.ended_early,
            notes=self._notes(),
        )

    def table(self, rows: int = 20) -> MemoryTable:
        """Return the peak, its split and its ``rows`` largest holdings: for ``print``, rich, Markdown or pandas."""
        return MemoryTable(self.profile(), rows)

    def plot(self, path: Path | str) -> None:
        """Draw live bytes by role over the step that holds the peak; the suffix of ``path`` is .png or .pdf."""
        from dbbench.report.figure_style import page, save_as  # matplotlib is slow to import
        from dbbench.report.figure_timeline import draw_step

        with page():
            save_as(draw_step(self.timeline(), self._name), Path(path))

    def diff(self, other: BareLedger | Profile | Path | str, rows: int = 20) -> Diff:
        """Return what grew from this ledger's peak to ``other``'s, largest first.

        ``other`` is a ledger, a profile, or a folder that `save` wrote.
        """
        mine = self.profile(), self.timeline()
        if isinstance(other, Ledger):
            return diff(mine, (other.profile(), other.timeline()), rows)
        if isinstance(other, BareLedger):
            return diff(mine, other.timeline(), rows)
        return diff(mine, other if isinstance(other, Profile) else read_profile(Path(other)), rows)

    def save(self, folder: Path | str) -> None:
        """Keep ``profile.json``, ``trace.parquet``, ``summary.md`` and the plot (PNG and PDF) in ``folder``."""
        from dbbench.profile.folder import save_profile

        save_profile(Path(folder), self.profile(), self.timeline())

    def _require_a_step(self) -> None:
        if not any(_is_step(window) for window in self.trace.windows):
            raise BadInput(
                "the ledger has no finished step yet: ask it after its 'with' block, or after a ledger.step()"
            )

    def _notes(self) -> list[str]:
        notes = [self.several_steps] if self.several_steps else []
        if self._census == "variables":
            how = "" if self._census_complete else f", among the first {MOST_LOOKED_AT:,} things that these lead to"
            notes.append(
                "tensors that were there before are counted as far as variables of the running functions and of "
                f"modules lead to them{how}; census=True finds the others"
            )
        elif self._census:
            notes.append("tensors that were there before are counted as far as Python can see them")
        elif self.account().resident_bytes:
            notes.append("of tensors that were there before, those count that the step touched or that were declared")
        return notes


def _is_step(window: Window) -> bool:
    return window.kind == "step"


def _figures(window: Window, peak_bytes: int, flops: Mapping[str, int]) -> StepFigures:
    return StepFigures(step=window.step, block=window.block, peak_bytes=peak_bytes, flops=dict(flops))


def by_name(given: Any) -> dict[str, Any]:
    """Name models or optimizers: a single one '', several by class (numbered where two share it), a dict's by key."""
    if given is None:
        return {}
    if isinstance(given, Mapping):
        return dict(given)
    if not isinstance(given, (list, tuple)):
        return {"": given}
    kinds = [type(one).__name__ for one in given]
    names = [kind if kinds.count(kind) == 1 else f"{kind}{kinds[:i].count(kind)}" for i, kind in enumerate(kinds)]
    return dict(zip(names, given, strict=True)) if len(names) > 1 else {"": given[0]} if given else {}


def _named(role: str, name: str, thing: Any) -> Iterator[tuple[str, str, Tensor]]:
    if isinstance(thing, nn.Module):
        thing = dict([*thing.named_parameters(), *thing.named_buffers()])
    for path, tensor in tensors_in(thing):
        yield role, name + path, tensor
