"""Tests whose step ends the process: a failed test each, never a green run."""

from __future__ import annotations

import pytest
from inner_run import Run

ENDS = ["os._exit(0)", "os.execv('/bin/true', ['true'])", "sys.exit(0)", "raise SystemExit(None)"]


@pytest.mark.parametrize("end", ENDS)
def test_a_measured_step_that_ends_the_process_fails_its_test(end: str, run: Run) -> None:
    """Broken if pytest is gone with status 0 before a limit was held, and what comes after it was never run."""
    ran = run(f"""
        import os, sys

        @pytest.mark.memory_limit(peak="1 GiB")
        def test_marked(model, batch):
            model(batch).sum().backward()
            {end}

        def test_asserted(model, batch, assert_peak):
            def step():
                model(batch).sum().backward()
                {end}
            assert_peak(step, peak="1 GiB")

        def test_with_a_ledger(model, batch, ledger):
            with ledger(model):
                {end}

        def test_after(model, batch):
            pass
    """)
    outcomes = ["failed", "failed", "failed", "passed"]
    assert list(ran.outcomes.values()) == outcomes, ran.output
    assert ran.status == 1


def test_a_step_that_interrupts_is_no_green_run(run: Run) -> None:
    """Broken if a KeyboardInterrupt of the step's own ends the session well."""
    ran = run("""
        @pytest.mark.memory_limit(peak="1 GiB")
        def test_marked(model, batch):
            raise KeyboardInterrupt
    """)
    assert ran.status == 2
    assert "passed" not in ran.outcomes.values()
