"""The outcome of a check, from which every output is made, and the exit status that follows from it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

#: Exit statuses, and what each says. Where several apply all are said, and the lowest is the command's.
FINE, CHANGED, BAD_INPUT, NO_BASELINE, MISSING_FROM_RUN, MISSING_FROM_BASELINE, OTHER_TORCH, NOTHING_COMPARED = range(8)
STATUSES = {
    FINE: "nothing changed",
    CHANGED: "a change was found",
    BAD_INPUT: "bad input",
    NO_BASELINE: "there is no baseline",
    MISSING_FROM_RUN: "a cell failed, or is in the baseline and was not measured",
    MISSING_FROM_BASELINE: "a cell is not in the baseline",
    OTHER_TORCH: "the baseline is of another version of torch",
    NOTHING_COMPARED: "nothing was compared",
}

Verdict = Literal["same", "changed", "not compared"]
Outcome = Literal[
    "same", "changed", "failed", "missing from the run", "missing from the baseline", "other torch", "not compared"
]
OF_OUTCOME: dict[str, int] = {
    "changed": CHANGED,
    "failed": MISSING_FROM_RUN,
    "missing from the run": MISSING_FROM_RUN,
    "missing from the baseline": MISSING_FROM_BASELINE,
    "other torch": OTHER_TORCH,
}


class Finding(BaseModel):
    """A metric of a cell against its expected value. ``line`` is where the baseline has it, ``commit`` what it would
    have to say instead; both None where there is no such line."""

    metric: str
    group: str
    expected: int | float | None
    measured: int | float | None
    tolerance: str
    verdict: Verdict
    why: str = ""
    line: int | None = None
    stands: str | None = None
    commit: str | None = None

    @property
    def difference(self) -> int | float:
        return (self.measured or 0) - (self.expected or 0)


class Culprit(BaseModel):
    """Bytes of a role that changed in a module. ``module`` is as a reader sees it, ``modules`` are all it stands for.

    ``instant`` says when they were counted: ``own peak``, ``own peak in PHASE``, or ``peak`` of the whole.
    """

    role: str
    module: str
    modules: list[str]
    op: str
    holder: str
    before_bytes: int
    after_bytes: int
    instant: str
    sentence: str

    @property
    def difference_bytes(self) -> int:
        return self.after_bytes - self.before_bytes


class Cause(BaseModel):
    """A role that changed by itself, the modules first that changed the most; ``sentence`` is the whole of it."""

    role: str
    difference_bytes: int
    instant: str
    sentence: str
    culprits: list[Culprit] = Field(default_factory=list)


class CellResult(BaseModel):
    """What became of one cell. ``causes`` begin with the root; ``following`` are roles that changed because of it."""

    cell: str
    source: str
    outcome: Outcome
    reason: str = ""
    findings: list[Finding] = Field(default_factory=list)
    causes: list[Cause] = Field(default_factory=list)
    following: list[str] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)

    @property
    def changed(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.verdict == "changed"]

    @property
    def not_compared(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.verdict == "not compared"]

    @property
    def compared(self) -> int:
        return len(self.findings) - len(self.not_compared)


class Result(BaseModel):
    """A check. ``measured`` names what was held against the ``baseline`` (a path), and ``update`` is the command that
    makes the baseline say what was measured."""

    baseline: str
    measured: str
    torch: list[str]
    update: str
    cells: list[CellResult]
    notes: list[str] = Field(default_factory=list)
    statuses: list[int] = Field(default_factory=list)
    status: int = FINE

    @property
    def compared(self) -> int:
        return sum(cell.compared for cell in self.cells)
