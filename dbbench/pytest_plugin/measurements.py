"""What one test measures: through the fixtures ``ledger`` and ``assert_peak``, or around its body."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from dbbench.errors import BadInput, did_you_mean
from dbbench.pytest_plugin import failure
from dbbench.pytest_plugin.limits import NAMES, Figures, Limit, parse_limit
from dbbench.pytest_plugin.memory_report import properties, use_of

if TYPE_CHECKING:
    from dbbench.profile.ledger import Ledger
    from dbbench.pytest_plugin.watching import Surroundings, WatchingLedger

_PARTS = ("model", "optimizer", "inputs", "ema")
_OPTIONS = (*_PARTS, "against", "warmup", "device")
#: What a limit is written as, where ``optimizer``, ``inputs`` and ``ema`` may be one or the thing itself.
_WRITTEN = (str, int, float)


def _as_if_raised_by_the_call(method: Callable[..., Any]) -> Callable[..., Any]:
    """Let what is wrong with a call, or with what it measured, show the call in the test and nothing of the plugin."""

    @functools.wraps(method)
    def called(*args: Any, **options: Any) -> Any:
        __tracebackhide__ = True
        try:
            return method(*args, **options)
        except (BadInput, failure.LimitExceeded) as error:
            raised = error
        raise raised.with_traceback(None)

    return called


@dataclass(frozen=True)
class _Source:
    """What a reference is measured from: a step and the ``parts`` that go with it, or a ledger or profile."""

    step: Any
    parts: Mapping[str, Any] = field(default_factory=dict)


class Measurements:
    """The ledgers of one test, in order, each with a name."""

    def __init__(self, item: pytest.Item, surroundings: Surroundings) -> None:
        self.item, self.surroundings = item, surroundings
        self.wants_ledger = False
        self.ledgers: list[tuple[str, WatchingLedger]] = []  # those that a marker's limits are held against
        self._uses: dict[str, list[str]] = {}

    def add(self, kind: str, ledger: WatchingLedger) -> str:
        """Take in a ledger and return its name: ``ledger``, ``ledger 2``…"""
        number = sum(name.partition(" ")[0] == kind for name, _ in self.ledgers) + 1
        name = kind if number == 1 else f"{kind} {number}"
        self.ledgers.append((name, ledger))
        return name

    def report(
        self,
        name: str,
        ledger: WatchingLedger,
        limits: Sequence[Limit] = (),
        references: Mapping[str, Figures] | None = None,
    ) -> None:
        """Let the test's report say what was measured, and of each limit how far it is used."""
        figures = ledger.account()
        uses = self._uses.setdefault(name, [])
        uses += [use_of(limit, figures, references or {}) for limit in limits]
        found = properties(name, figures, ledger.trace.device, uses)
        named = {key for key, _ in found}
        others = [(key, value) for key, value in self.item.user_properties if key not in named]
        self.item.user_properties[:] = [*others, *found]

    def check(self, limits: Sequence[Limit], where: str, may_measure_nothing: bool = False) -> None:
        """Report what was measured; raise LimitExceeded where it does not keep to the ``limits`` of the marker.

        Raises BadInput where there are limits and nothing that they could be held against, unless the test
        ``may_measure_nothing``.
        """
        __tracebackhide__ = True
        from dbbench.pytest_plugin.watching import require_seen

        entered = [(name, ledger) for name, ledger in self.ledgers if ledger.entered]
        for name, ledger in entered:
            if not any(window.kind == "step" for window in ledger.trace.windows):
                if limits:
                    raise BadInput(f"{where}: {name} is still open as the test ends, and has no step that is finished")
                continue
            self.report(name, ledger, limits)
        if limits and not entered and not may_measure_nothing:
            raise BadInput(
                f"{where}: nothing to hold the limits against: the test opened no ledger and measured no step"
            )
        for name, ledger in entered:
            if limits and may_measure_nothing and not ledger.account().peak_bytes:
                continue
            if limits:
                require_seen(ledger, False, f"{where}: {name}")
                failure.check(limits, ledger, name, {}, pytrace=False)


class LedgerFactory:
    """The fixture ``ledger``: called, it gives a `dbbench.Ledger` to open.

    with ledger(model, optimizer, inputs=batch) as found:
        step()
    assert found.peak.split["retained"] == 0

    It takes what `dbbench.Ledger` takes. Without a model it finds what is trained by itself. ``census`` takes in what
    was there before: by default what this test and its fixtures made.
    """

    def __init__(self, measurements: Measurements) -> None:
        self._measurements = measurements

    def __call__(
        self,
        model: Any = None,
        optimizer: Any = None,
        *,
        inputs: Any = None,
        ema: Any = None,
        device: Any = None,
        census: Any = None,
        strict: bool = False,
    ) -> Ledger:
        ledger = self._measurements.surroundings.ledger(
            model, optimizer, inputs=inputs, ema=ema, device=device, census=census, strict=strict
        )
        self._measurements.add("ledger", ledger)
        return ledger


class AssertPeak:
    """The fixture ``assert_peak``: trains one step for warming up, another under a ledger, and holds limits against it.

    assert_peak(step, peak="<= 80 MiB", activations="<= 0.25 * backprop", backprop=other_step)

    ``step`` is a callable that trains once, or what `dbbench profile`'s callables give: ``(model, optimizer, step)``,
    a dict, an object. Limits are those of `dbbench.pytest_plugin.limits`; whatever else has a name and can be measured
    is a reference, as are those in ``against`` and those declared by `reference`. ``optimizer``, ``inputs`` and ``ema``
    are the things themselves, or limits where they are written as one. Returns the ledger, which has
    ``peak``, ``profile()``, ``table()`` and ``diff(other)``.
    """

    def __init__(self, measurements: Measurements) -> None:
        self._measurements = measurements
        self._declared: dict[str, _Source] = {}

    @_as_if_raised_by_the_call
    def reference(self, name: str, step: Any, **parts: Any) -> None:
        """Declare ``step`` (or a ledger, or a profile) as what limits may call ``name``; it is measured when one does.

        ``parts`` are ``model``, ``optimizer``, ``inputs`` and ``ema``, ``warmup`` and ``device``, as for `measure`.
        """
        __tracebackhide__ = True
        self._check_name(name)
        self._declared[name] = _Source(step, parts)

    @_as_if_raised_by_the_call
    def measure(
        self,
        step: Any,
        *,
        model: Any = None,
        optimizer: Any = None,
        inputs: Any = None,
        ema: Any = None,
        warmup: int = 1,
        device: Any = None,
    ) -> Ledger:
        """Measure ``step`` and return its ledger; nothing is asserted."""
        __tracebackhide__ = True
        from dbbench.pytest_plugin.step import measured_step

        given = {"model": model, "optimizer": optimizer, "inputs": inputs, "ema": ema}
        ledger = measured_step(step, given, warmup, device, self._measurements.item.name)
        self._measurements.report(self._measurements.add("step", ledger), ledger)
        return ledger

    @_as_if_raised_by_the_call
    def __call__(
        self,
        step: Any,
        *,
        model: Any = None,
        optimizer: Any = None,
        inputs: Any = None,
        ema: Any = None,
        against: Mapping[str, Any] | None = None,
        warmup: int = 1,
        device: Any = None,
        **limits_and_references: Any,
    ) -> Ledger:
        __tracebackhide__ = True
        from dbbench.pytest_plugin.step import measured_step

        given = {"model": model, "optimizer": optimizer, "inputs": inputs, "ema": ema}
        roles = {name: value for name, value in given.items() if isinstance(value, _WRITTEN)}
        given |= dict.fromkeys(roles)
        sources, written = self._sorted(against or {}, limits_and_references | roles)
        limits = [parse_limit(name, value, "assert_peak", sources) for name, value in written.items()]
        if not limits:
            raise BadInput(
                'assert_peak(step): no limit to hold; write one such as peak="<= 80 MiB", or use .measure(step)'
            )
        ledger = measured_step(step, given, warmup, device, self._measurements.item.name)
        name = self._measurements.add("step", ledger)
        references = {used: self._figures(used, sources[used]) for used in {one.reference for one in limits} - {""}}
        self._measurements.report(name, ledger, limits, references)
        failure.check(limits, ledger, name, references)
        return ledger

    def _sorted(
        self, against: Mapping[str, Any], named: Mapping[str, Any]
    ) -> tuple[dict[str, _Source], dict[str, Any]]:
        """Tell references from limits; a limit is text or a number."""
        __tracebackhide__ = True
        limits = {n: v for n, v in named.items() if n in NAMES or isinstance(v, (*_WRITTEN, type(None)))}
        for name in limits:
            if name not in NAMES:
                raise BadInput(
                    f"assert_peak({name}=…): there is no limit '{name}'{did_you_mean(name, (*NAMES, *_OPTIONS))}"
                )
        given = dict(against) | {name: value for name, value in named.items() if name not in limits}
        for name in given:
            self._check_name(name)
        return self._declared | {name: _Source(step) for name, step in given.items()}, limits

    def _check_name(self, name: str) -> None:
        __tracebackhide__ = True
        if not str(name).isidentifier() or name in (*NAMES, *_OPTIONS):
            raise BadInput(f"assert_peak: a reference cannot be called '{name}'; its name is one word, and no role's")

    def _figures(self, name: str, source: _Source) -> Figures:
        """Return the figures of a reference, which is measured once."""
        __tracebackhide__ = True
        from dbbench.measure.ledger import BareLedger
        from dbbench.pytest_plugin.step import measured_step
        from dbbench.results.profile import Profile

        if isinstance(source.step, Profile):
            return source.step
        if isinstance(source.step, BareLedger):
            return source.step.account()
        step, parts = source.step, source.parts
        given = {part: parts.get(part) for part in _PARTS}
        where = f"{self._measurements.item.name}, {name}"
        ledger = measured_step(step, given, parts.get("warmup", 1), parts.get("device"), where)
        self._measurements.report(name, ledger)
        if self._declared.get(name) is source:
            self._declared[name] = _Source(ledger)
        return ledger.account()
