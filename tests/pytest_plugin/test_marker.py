"""``@pytest.mark.memory_limit``: limits to the byte, what is said beside them, and which marker counts."""

from __future__ import annotations

import pytest
from inner_run import ACTIVATIONS, BATCH, FLOAT, HIDDEN, IN, INPUTS, PARAMETERS, Run


def test_limits_are_those_counted_by_hand(run: Run) -> None:
    """A limit would be of something else than parameters, gradients, inputs and activations: each to the byte."""
    exact = {"parameters": PARAMETERS, "gradients": PARAMETERS, "inputs": INPUTS, "activations": ACTIVATIONS}
    ran = run(f"""
        TRAIN = lambda model, batch: model(batch).sum().backward()

        @pytest.mark.memory_limit(**{exact})
        def test_exact(model, batch):
            TRAIN(model, batch)

        @pytest.mark.parametrize("which", [
            pytest.param(name, marks=pytest.mark.memory_limit(**{{name: size - 1}})) for name, size in {exact}.items()
        ])
        def test_less(which, model, batch):
            TRAIN(model, batch)
    """)
    assert ran.outcomes["test_exact"] == "passed"
    for name, size in exact.items():
        assert ran.outcomes[f"test_less[{name}]"] == "failed"
        assert f"{name}: " in ran.words[f"test_less[{name}]"]
        assert f"({size:,} bytes), 1 byte (" in ran.words[f"test_less[{name}]"]


def test_the_peak_is_that_counted_by_hand(run: Run) -> None:
    """The peak would leave out what fixtures made, or count what was there before: a prediction of one map."""
    peak = (IN * HIDDEN + HIDDEN) * FLOAT + INPUTS + BATCH * HIDDEN * FLOAT
    ran = run(f"""
        @pytest.fixture
        def one():
            torch.zeros(1 << 20)  # what making it took does not count
            return nn.Linear(IN, HIDDEN)

        def predict(one, batch):
            with torch.no_grad():
                one(batch)

        @pytest.mark.memory_limit(peak={peak})
        def test_exact(one, batch):
            predict(one, batch)

        @pytest.mark.memory_limit(peak={peak - 1})
        def test_less(one, batch):
            predict(one, batch)

        @pytest.mark.memory_limit(peak="== {peak}")
        def test_made_in_the_body():
            one, batch = nn.Linear(IN, HIDDEN), torch.zeros(BATCH, IN)
            predict(one, batch)
    """)
    assert ran.outcomes == {"test_exact": "passed", "test_less": "failed", "test_made_in_the_body": "passed"}
    assert ran.properties["test_less"]["memory:body:peak_bytes"] == peak


def test_it_says_what_to_look_at(run: Run) -> None:
    """A failure would be a number: it names the role, the module, the op, what keeps it, the phase, and is short."""
    ran = run("""
        @pytest.mark.memory_limit(activations="4 KiB", peak="1 GiB")
        def test_it(model, batch):
            model(batch).sum().backward()
    """)
    words = ran.words["test_it"]
    assert words.startswith("activations: 0.01 MiB (8,192 bytes), 4,096 bytes (100.0%) above the limit (<= 4 KiB)")
    assert "first   aten.addmm  input of addmm in second" in words
    assert "at their own peak (in forward)" in words
    assert len(words.splitlines()) <= 25
    assert "hidden" not in words and ".py" not in words
    assert "FAILED test_inner.py::test_it - LimitExceeded: activations" in ran.output


def test_other_outcomes_are_left_alone(run: Run) -> None:
    """A limit would mask the first failure, run what is skipped, or hide from a strict xfail."""
    ran = run("""
        pytestmark = pytest.mark.memory_limit(peak=1)

        def test_fails_first(model, batch):
            assert model(batch) is None, "the first reason"

        def test_skips(model, batch):
            model(batch)
            pytest.skip("a reason")

        @pytest.mark.skip
        def test_is_skipped():
            raise AssertionError

        @pytest.mark.xfail(strict=True)
        def test_xfails_by_the_limit(model, batch):
            model(batch)

        @pytest.mark.xfail(strict=True, raises=AssertionError)
        def test_xfails_by_kind(model, batch):
            model(batch)

        @pytest.mark.xfail(strict=True)
        @pytest.mark.memory_limit(peak="1 GiB")
        def test_does_not_xfail(model, batch):
            model(batch)

        @pytest.fixture
        def broken():
            raise ValueError("in a fixture")

        def test_has_no_set_up(broken):
            pass
    """)
    assert ran.outcomes == {
        "test_fails_first": "failed",
        "test_skips": "skipped",
        "test_is_skipped": "skipped in setup",
        "test_xfails_by_the_limit": "xfailed",
        "test_xfails_by_kind": "xfailed",
        "test_does_not_xfail": "failed",
        "test_has_no_set_up": "failed in setup",
    }
    assert "the first reason" in ran.words["test_fails_first"]
    assert "LimitExceeded" not in ran.words["test_fails_first"]
    assert "XPASS(strict)" in ran.words["test_does_not_xfail"]


def test_what_can_be_no_limit_fails_the_collection(run: Run) -> None:
    """A test with a slip in its limit would pass; each is named, with the nearest name, and nothing runs."""
    ran = run("""
        @pytest.mark.memory_limit(activation="1 MiB")
        def test_role(): ...

        @pytest.mark.memory_limit(peak="80 MiBs")
        def test_unit(): ...

        @pytest.mark.memory_limit("80 MiB")
        def test_nameless(): ...

        @pytest.mark.memory_limit()
        def test_empty(): ...

        @pytest.mark.memory_limit(peak="0.5 * backprop")
        def test_reference(): ...

        @pytest.mark.memory_limit(peak="1 MiB", device="cude")
        def test_device(): ...

        def test_fine():
            raise AssertionError("ran")
    """)
    assert ran.status == pytest.ExitCode.INTERRUPTED
    assert not ran.outcomes
    words = ran.words["test_inner.py"]
    for test, problem in {
        "test_role": "there is no limit 'activation' (did you mean 'activations'?)",
        "test_unit": "unknown unit 'MiBs' (did you mean 'MiB'?)",
        "test_nameless": "say of what, as in memory_limit(peak='80 MiB')",
        "test_empty": "limits nothing",
        "test_reference": "a marker knows no reference 'backprop'",
        "test_device": "(did you mean 'cuda'?)",
    }.items():
        (line,) = (line for line in words.splitlines() if f"::{test}: " in line)
        assert problem in line


def test_methods_are_looked_at_too(run: Run) -> None:
    """A slip on a class would go unseen, and unittest's methods have limits that nobody holds."""
    ran = run("""
        import unittest

        @pytest.mark.memory_limit(peak=-1)
        class TestClass:
            def test_method(self): ...

        class TestOld(unittest.TestCase):
            @pytest.mark.memory_limit(peak="1 MiB")
            def test_old(self): ...
    """)
    assert not ran.outcomes
    assert "TestClass::test_method: memory_limit(peak=-1)" in ran.words["test_inner.py::TestClass"]
    assert "TestOld::test_old: memory_limit: TestCaseFunction is no" in ran.words["test_inner.py::TestOld"]


def test_a_marker_that_comes_late_is_read(run: Run) -> None:
    """One that a hook or a fixture adds would count for nothing."""
    ran = run("""
        @pytest.fixture
        def late(request):
            request.node.add_marker(pytest.mark.memory_limit(**request.param))

        @pytest.mark.parametrize("late", [{"peak": 1}, {"peek": 1}], indirect=True, ids=["limit", "slip"])
        def test_it(late, model, batch):
            model(batch)
    """)
    assert "above the limit (<= 1 byte)" in ran.words["test_it[limit]"]
    assert "did you mean 'peak'?" in ran.words["test_it[slip]"]


def test_the_closest_of_several_markers_counts(run: Run) -> None:
    """A test could not have a limit of its own under its class's, or would lose the class's others."""
    ran = run("""
        @pytest.mark.memory_limit(peak=1, activations=1)
        class TestClass:
            @pytest.mark.memory_limit(peak="1 GiB")
            def test_it(self, model, batch):
                model(batch).sum().backward()
    """)
    assert ran.words["TestClass::test_it"].startswith("activations: ")
    assert "peak: " not in ran.words["TestClass::test_it"]
