"""What an inner run of pytest is given, and what it leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

#: What most of the inner tests train: two maps, of which the second keeps what the first gives.
MODEL = """
import pytest, torch
from torch import nn

IN, HIDDEN, OUT, BATCH, FLOAT = 8, 32, 4, 64, 4

class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(IN, HIDDEN), nn.Linear(HIDDEN, OUT)

    def forward(self, x):
        return self.second(self.first(x))

@pytest.fixture
def model():
    return Two()

@pytest.fixture
def batch():
    return torch.randn(BATCH, IN)
"""

#: Bytes of `MODEL`, counted by hand.
IN, HIDDEN, OUT, BATCH, FLOAT = 8, 32, 4, 64, 4
PARAMETERS = (IN * HIDDEN + HIDDEN + HIDDEN * OUT + OUT) * FLOAT
INPUTS = BATCH * IN * FLOAT
#: The second map keeps what it was given; the first map's input is the batch itself.
ACTIVATIONS = BATCH * HIDDEN * FLOAT


@dataclass
class Ran:
    """What an inner run left: its exit status, its output, the outcome of each test and the words of each failure."""

    status: int = -1
    output: str = ""
    outcomes: dict[str, str] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    properties: dict[str, dict[str, Any]] = field(default_factory=dict)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = report.nodeid.partition("::")[2]
        if report.when == "call" or report.outcome != "passed":
            outcome = report.outcome
            if hasattr(report, "wasxfail"):
                outcome = {"skipped": "xfailed", "passed": "xpassed"}.get(outcome, outcome)  # type: ignore[assignment]
            self.outcomes[name] = outcome if report.when == "call" else f"{outcome} in {report.when}"
            self.words[name] = report.longreprtext
            self.properties[name] = dict(report.user_properties)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.words[report.nodeid] = report.longreprtext


Run = Callable[..., Ran]
