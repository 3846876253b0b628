"""The hooks and fixtures of the pytest plugin; `dbbench.pytest_plugin` says how they are used.

Whoever has dbbench installed loads this module in every pytest run, so it imports neither torch nor pandas: what needs
them is imported when a test is measured.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Generator
from typing import Any

import pytest

from dbbench.errors import BadInput
from dbbench.foreign import process_kept
from dbbench.pytest_plugin import memory_report
from dbbench.pytest_plugin.leaks import allowance, measured_leaks
from dbbench.pytest_plugin.limits import Limit, Marked, marked, session_limits
from dbbench.pytest_plugin.measurements import AssertPeak, LedgerFactory, Measurements

_MARKER, _LEAKS = "memory_limit", "memory_leaks"
_SESSION = pytest.StashKey[list[Limit]]()
_MEASUREMENTS = pytest.StashKey[Measurements]()
_BEFORE = pytest.StashKey[Any]()
_MOST_ERRORS = 20


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare ``--memory-report``."""
    group = parser.getgroup("dbbench", "memory of training steps")
    group.addoption(
        "--memory-report",
        action="store_true",
        dest="dbbench_memory_report",
        help="print the peak memory of every test that measured some, at the end",
    )
    words = "limits of every test, such as '80 MiB' (the peak) or 'peak=80 MiB, kept=0 B'; a test's marker comes first"
    group.addoption("--memory-limit", metavar="LIMITS", dest="dbbench_memory_limit", help=words)
    parser.addini("memory_limit", words, default="")


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers, for ``--strict-markers`` and ``pytest --markers``, and read the session's limits."""
    asked = config.getoption("dbbench_memory_limit")
    written, where = (asked, "--memory-limit") if asked is not None else (config.getini("memory_limit"), "memory_limit")
    try:
        config.stash[_SESSION] = session_limits(written, where)
    except BadInput as error:
        raise pytest.UsageError(str(error)) from error
    config.addinivalue_line(
        "markers",
        f"{_LEAKS}(SIZE, warmup=1): fail if more than SIZE is alive after the test that was not before; the body runs "
        "WARMUP times first, so that gradients and optimizer state are there (dbbench.pytest_plugin)",
    )
    config.addinivalue_line(
        "markers",
        f"{_MARKER}(peak=SIZE, ROLE=SIZE, device=DEVICE): fail if the test's peak memory, or what a role such as "
        "activations reaches by itself, is above a size such as '80 MiB' (dbbench.pytest_plugin)",
    )


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, Any]:
    """Let the collection fail where a limit cannot be one: a slip is not to pass for a limit that holds."""
    report = yield
    errors: list[str] = []
    for item in report.result or ():
        if isinstance(item, pytest.Item):
            error = _marker_error(item)
            if error is not None and error not in errors:
                errors.append(error)
    if errors:
        more = [f"and {len(errors) - _MOST_ERRORS} more"] if len(errors) > _MOST_ERRORS else []
        report.outcome, report.result, report.longrepr = "failed", [], "\n".join([*errors[:_MOST_ERRORS], *more])
    return report


def _marker_error(item: pytest.Item) -> str | None:
    try:
        limits = marked(item.iter_markers(_MARKER), item.nodeid)
        leaks = allowance(item.get_closest_marker(_LEAKS), item.nodeid)
    except BadInput as error:
        return str(error)
    for name, given in ((_MARKER, limits), (_LEAKS, leaks)):
        if given is not None and not _is_measurable(item):
            return f"{item.nodeid}: {name}: {type(item).__name__} is no test function, and is not measured"
    return None


def _is_measurable(item: pytest.Item) -> bool:
    """Tell whether pytest calls the test through ``pytest_pyfunc_call``; unittest calls its own."""
    return isinstance(item, pytest.Function) and type(item).__name__ != "TestCaseFunction"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Note what there is before the fixtures of a test that will be measured."""
    measured = item.get_closest_marker(_MARKER) is not None or "ledger" in getattr(item, "fixturenames", ())
    measured = measured or bool(item.config.stash.get(_SESSION, []))
    if measured and "torch" in sys.modules:
        from dbbench.pytest_plugin.watching import Baseline

        item.stash[_BEFORE] = Baseline()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Let go of what was measured: an item lives as long as the session."""
    for key in (_MEASUREMENTS, _BEFORE):
        if key in item.stash:
            del item.stash[key]


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Measure the body of a test with a limit, and hold limits against what was measured, if it passes otherwise."""
    try:
        limits = _with_session(pyfuncitem, marked(pyfuncitem.iter_markers(_MARKER), pyfuncitem.nodeid))
        leaks = allowance(pyfuncitem.get_closest_marker(_LEAKS), pyfuncitem.nodeid)
    except BadInput as error:  # of a marker that was added after the collection
        pytest.fail(str(error), pytrace=False)
    if leaks is not None:
        pyfuncitem.obj = measured_leaks(pyfuncitem.obj, leaks, lambda: _fixtures(pyfuncitem), pyfuncitem.name)
    if limits is None and _MEASUREMENTS not in pyfuncitem.stash:
        return (yield)
    measurements = _measurements(pyfuncitem)
    if limits is None or _measures_itself(pyfuncitem):
        with process_kept():  # a step that ends pytest itself would leave a green run
            result = yield
        used_cuda = None
    else:
        from dbbench.pytest_plugin.watching import cuda_noticed

        body = measurements.surroundings.ledger(device=limits.device)
        measurements.add("body", body)
        with cuda_noticed() as on_cuda, process_kept(), body:
            result = yield
        used_cuda = body if on_cuda() else None
    try:
        _check(measurements, limits, used_cuda, pyfuncitem.nodeid)
    except BadInput as error:
        problem = str(error)
    else:
        return result
    pytest.fail(problem, pytrace=False)


def _with_session(item: pytest.Function, limits: Marked | None) -> Marked | None:
    """Add the session's limits to a test's own, which come first. They ask nothing of a test without torch."""
    default = item.config.stash.get(_SESSION, [])
    if not default or "torch" not in sys.modules:
        return limits
    own = limits or Marked([], None, may_measure_nothing=True)
    named = {limit.name for limit in own.limits}
    more = [limit for limit in default if limit.name not in named]
    return Marked([*own.limits, *more], own.device, own.may_measure_nothing) if more else limits


def _check(measurements: Measurements, limits: Marked | None, used_cuda: Any, where: str) -> None:
    __tracebackhide__ = True
    if used_cuda is not None:
        from dbbench.pytest_plugin.watching import require_seen

        require_seen(used_cuda, True, f"{where}: body")
    if limits is None:
        measurements.check([], where)
    else:
        measurements.check(limits.limits, where, limits.may_measure_nothing)


def _measures_itself(item: pytest.Function) -> bool:
    """Tell whether the test opens ledgers, so that none belongs around its body."""
    return _measurements(item).wants_ledger or "assert_peak" in inspect.signature(item.function).parameters


def _measurements(item: pytest.Item) -> Measurements:
    """Return what ``item`` measures, from the first call on."""
    if _MEASUREMENTS not in item.stash:
        from dbbench.pytest_plugin.watching import Surroundings

        before = item.stash.get(_BEFORE, None)
        item.stash[_MEASUREMENTS] = Measurements(item, Surroundings(before, lambda: _fixtures(item), item.name))
    return item.stash[_MEASUREMENTS]


def _fixtures(item: Any) -> dict[str, Any]:
    """Return what the test was given, by name, with the object that its methods share."""
    shared = getattr(item, "instance", None)
    return {**item.funcargs, **({} if shared is None else {"self": shared})}


@pytest.fixture
def ledger(request: pytest.FixtureRequest) -> LedgerFactory:
    """Gives ledgers: ``with ledger(model, optimizer, inputs=batch) as found: step()``."""
    measurements = _measurements(request.node)
    measurements.wants_ledger = True
    return LedgerFactory(measurements)


@pytest.fixture
def assert_peak(request: pytest.FixtureRequest) -> AssertPeak:
    """Holds limits against one training step: ``assert_peak(step, peak="<= 80 MiB")``."""
    return AssertPeak(_measurements(request.node))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the table of ``--memory-report``."""
    if not config.getoption("dbbench_memory_report"):
        return
    found = memory_report.rows(report for reports in terminalreporter.stats.values() for report in reports)
    terminalreporter.section("memory of the measured tests", "-", yellow=True)
    for line in memory_report.table(found) if found else ["no test measured any"]:
        terminalreporter.line(line)
