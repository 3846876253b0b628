"""Foreign code that does something hostile, whatever it is and wherever: no verb ends well for it, and none loses.

The cases are generated: what the code does × where × under which verb.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hostile.folders import nothing_lost
from hostile.sampling import sample
from hostile.strangers import ENDS, HARMLESS, PLACES, RAISES, Project, dbbench, write_project

from dbbench.gate import check as gate
from dbbench.gate.baseline import Baseline
from dbbench.gate.cells import Cell, Figure
from dbbench.gate.tolerance import EXACT, OFF

Make = Callable[[str, str, str], Project]
CASES = [(part, place) for part, places in PLACES.items() for place in places]
#: By verb: what is asked of it, in the project's folder, and what it may end with where the code under test fails.
VERBS: dict[str, tuple[list[str], set[int]]] = {
    "check": ("check --fake SUITE --baseline baseline --json out.json --junit out.xml".split(), {2, 4}),
    "update": ("check --fake SUITE --baseline out.baseline --update".split(), {2, 4}),
    "estimate": ("estimate SUITE --out out".split(), {1, 2}),
    "fit": ("fit SUITE --memory 1GiB --max 64 --out out".split(), {1, 2}),
    "scaling": ("scaling SUITE --over batch --values 2,4 --out out".split(), {1, 2}),
    "run": ("run SUITE --device cpu --no-timing --out out".split(), {1, 2}),
}
_count = iter(range(1_000_000))


def covering(kinds: list[str], every: tuple[str, ...]) -> list[tuple[str, str, str]]:
    """Return (kind, part, place): some kinds in every place, each of the others in one of each part, by turns."""
    found = [(kind, *case) for kind in every for case in CASES]
    for number, kind in enumerate(kinds):
        found += [(kind, part, places[number % len(places)]) for part, places in PLACES.items()]
    return sorted(set(found))


def in_turn(kinds: list[str]) -> list[tuple[str, str, str]]:
    """Return (kind, part, place) with every place once, the kinds by turns."""
    return [(kinds[number % len(kinds)], *case) for number, case in enumerate(CASES)]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Give what writes a project into a folder that is worked in and imported from."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    made: list[str] = []

    def write(part: str, place: str, code: str) -> Project:
        made.append(f"stranger{next(_count)}")
        return write_project(tmp_path, made[-1], part, place, code)

    yield write
    for name in made:
        sys.modules.pop(name, None)


@pytest.fixture(scope="session")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The baseline of the project while nothing in it is hostile."""
    folder = tmp_path_factory.mktemp("harmless")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_project(folder, "unused", "none", "", "pass")
        done = dbbench("check", "--fake", "strange.yaml", "--baseline", "baseline", "--update")
    assert done.exit_code == 0, done.output
    return (folder / "baseline").read_text()


def require_one_line(text: str) -> None:
    lines = [line for line in text.splitlines() if line.strip()]
    assert len(lines) == 1, text
    assert len(lines[0]) < 1000


def hold(verb: str, project: Project, baseline: str, code: str) -> None:
    """Run ``verb`` on a project that does ``code``, and require all that is due where that fails."""
    arguments, allowed = VERBS[verb]
    (project.folder / "baseline").write_text(baseline)
    with nothing_lost(project.folder, may_add=("out",)):
        done = dbbench(*(str(project.suite.name) if word == "SUITE" else word for word in arguments))
    said = done.stdout + done.stderr
    assert isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code in allowed, (done.exit_code, said)
    assert "Traceback" not in said
    written = " ".join(path.read_text() for path in project.folder.glob("out/records/*.json"))
    json_file = project.folder / "out.json"
    if verb == "check" and done.exit_code == 4:
        found = json.loads(json_file.read_text())
        assert 4 in found["statuses"]
        assert (project.folder / "out.xml").read_bytes().count(b"<error") == 1
        written += found["cells"][0]["reason"]
    if done.exit_code == 2:
        require_one_line(done.stderr)
        assert not done.stdout, done.stdout
    where = f"{project.module}.py:"
    assert where in "".join(said.split()) + written, f"the place is not named: {said}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "part", "place"), sample(covering([*ENDS, *RAISES], every=("exit", "_exit", "raise")), 2)
)
def test_a_check_fails_whatever_the_code_does(kind: str, part: str, place: str, make: Make, baseline: str) -> None:
    """Broken if code under test that exits, raises or recurses passes the gate, or costs what was asked for beside."""
    code = (ENDS | RAISES)[kind]
    hold("check", make(part, place, code), baseline, code)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "part", "place", "verb"),
    sample([(*case, verb) for case in in_turn([*ENDS, *RAISES]) for verb in VERBS if verb != "check"], 3),
)
def test_every_verb_fails(kind: str, verb: str, part: str, place: str, make: Make, baseline: str) -> None:
    """Broken if some verb takes an exit for its own end, or shows a traceback."""
    code = (ENDS | RAISES)[kind]
    hold(verb, make(part, place, code), baseline, code)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "place"), sample(list(itertools.product([*ENDS, *RAISES], ["evaluation", "measure"])), 2)
)
def test_a_run_fails_where_only_a_run_comes(kind: str, place: str, make: Make, baseline: str) -> None:
    """Broken if a cell that trained is ok although its evaluation ended the process."""
    code = (ENDS | RAISES)[kind]
    hold("run", make("task", place, code), baseline, code)


HERE_AND_THERE = itertools.cycle([(part, place) for part in PLACES for place in ("import", PLACES[part][-1])])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "verb", "part", "place"),
    [(kind, verb, *next(HERE_AND_THERE)) for kind in HARMLESS for verb in VERBS],
)
def test_what_code_may_do_changes_nothing(
    kind: str, verb: str, part: str, place: str, make: Make, baseline: str
) -> None:
    """Broken if a working folder that was changed, or a print, moves or spoils what is written."""
    project = make(part, place, HARMLESS[kind])
    (project.folder / "baseline").write_text(baseline)
    with nothing_lost(project.folder, may_add=("out",)):
        done = dbbench(*(project.suite.name if word == "SUITE" else word for word in VERBS[verb][0]))
    assert done.exit_code == 0, (done.output, done.exception)
    assert Path.cwd() == project.folder
    assert list(project.folder.glob("out*")), "what was asked for is elsewhere"
    assert '"status"' not in done.stdout, "what foreign code prints is not the command's"
    if verb == "check":
        assert json.loads((project.folder / "out.json").read_text())["cells"][0]["outcome"] == "same"
    if verb == "run":
        assert len(list(project.folder.glob("out/traces/*.parquet"))) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "device", "place"),
    sample(list(itertools.product([*ENDS, *RAISES, *HARMLESS], ["cpu", "fake"], ["import", "make_step", "step"])), 3),
)
def test_a_profile(kind: str, device: str, place: str, make: Make) -> None:
    """Broken if a step that exits is a profile of nothing with status 0, or one that prints or moves is none."""
    project = make("training", place, (ENDS | RAISES | HARMLESS)[kind])
    with nothing_lost(project.folder, may_add=("out",)):
        done = dbbench("profile", f"{project.module}:make_step", "--device", device, "--out", "out")
    assert Path.cwd() == project.folder
    assert "Traceback" not in done.output
    if kind in HARMLESS:
        assert done.exit_code == 0, done.output
        assert (project.folder / "out" / "summary.md").exists()
        return
    assert done.exit_code == (1 if place == "step" else 2), (done.output, done.exception)
    require_one_line(done.stderr)
    assert f"{project.module}.py:" in done.stderr


@pytest.mark.parametrize("code", [ENDS["exit"], ENDS["_exit"], ENDS["interrupt"]])
def test_the_gate_does_not_pass_when_the_code_under_test_exits(code: str, make: Make, baseline: str) -> None:
    """Broken if ``sys.exit(0)`` in a step is a green check: the worst that a gate can do."""
    hold("check", make("method", "step", code), baseline, code)


STATES = ("same", "changed", "failed", "gone", "new", "other torch", "off", "nowhere")


@pytest.mark.parametrize("states", list(itertools.product(STATES, repeat=2)), ids=", ".join)
def test_no_check_ends_with_0_without_a_comparison(states: tuple[str, str], tmp_path: Path) -> None:
    """Broken if there is a way to status 0 on which some cell, or all of them, went uncompared."""
    found = gate.check(baseline_in(states, tmp_path), measured_in(states))
    fine = set(states) <= {"same", "off", "nowhere"} and "same" in states  # off is the reader's own choice
    assert (found.status == 0) == fine, found.statuses
    if found.status == 0:
        assert found.compared == states.count("same")


def baseline_in(states: tuple[str, ...], folder: Path) -> Baseline:
    """Return a baseline of a cell in each of ``states``, as one that is read."""
    found = Baseline(folder / "baseline")
    for number, state in enumerate(states):
        if state not in ("new", "nowhere"):
            torch = "1.0.0" if state == "other torch" else "2.13.0"
            figures = {"peak_bytes": Figure(100, OFF if state == "off" else EXACT)}
            cell = Cell(f"s/{number}", "fake", torch, figures)
            found.cells[cell.key] = cell
            found.present.add((cell.name, cell.source))
    return found


def measured_in(states: tuple[str, ...]) -> gate.Measurement:
    """Return what was measured of them."""
    cells = [
        Cell(f"s/{number}", "fake", "2.13.0", {"peak_bytes": Figure(101 if state == "changed" else 100)})
        for number, state in enumerate(states)
        if state not in ("failed", "gone", "nowhere")
    ]
    failed = {f"s/{number}": "it broke" for number, state in enumerate(states) if state == "failed"}
    return gate.Measurement("s", cells, failed, {"s"}, {"fake"})
