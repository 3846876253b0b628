"""Foreign code that does something hostile, whatever it is and wherever: no verb ends well for it, and none loses.

The cases are generated: what the code does × where × under which verb.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest
from hostile.folders import nothing_lost
from hostile.strangers import ENDS, HARMLESS, PLACES, RAISES, Project, dbbench, write_project

from dbbench.gate import check as gate

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
    assert done.exit_code in allowed, (done.exit_code, said, done.exception)
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
@pytest.mark.parametrize(("part", "place"), CASES)
@pytest.mark.parametrize("kind", [*ENDS, *RAISES])
def test_a_check_fails_whatever_the_code_does(kind: str, part: str, place: str, make: Make, baseline: str) -> None:
    """Broken if code under test that exits, raises or recurses passes the gate, or costs what was asked for beside."""
    code = (ENDS | RAISES)[kind]
    hold("check", make(part, place, code), baseline, code)


@pytest.mark.slow
@pytest.mark.parametrize(("part", "place"), CASES)
@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "check"])
@pytest.mark.parametrize("kind", ["exit", "_exit", "interrupt", "raise"])
def test_every_verb_fails(kind: str, verb: str, part: str, place: str, make: Make, baseline: str) -> None:
    """Broken if some verb takes an exit for its own end, or shows a traceback."""
    code = (ENDS | RAISES)[kind]
    hold(verb, make(part, place, code), baseline, code)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["evaluation", "measure"])
@pytest.mark.parametrize("kind", [*ENDS, *RAISES])
def test_a_run_fails_where_only_a_run_comes(kind: str, place: str, make: Make, baseline: str) -> None:
    """Broken if a cell that trained is ok although its evaluation ended the process."""
    code = (ENDS | RAISES)[kind]
    hold("run", make("task", place, code), baseline, code)


@pytest.mark.slow
@pytest.mark.parametrize("part", PLACES)
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("kind", HARMLESS)
def test_what_code_may_do_changes_nothing(
    kind: str, verb: str, part: str, make: Make, baseline: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Broken if a working folder that was changed, or a print, moves or spoils what is written."""
    for place in ("import", {"method": "step", "task": "batch", "network": "embed"}[part]):
        project = make(part, place, HARMLESS[kind])
        (project.folder / "baseline").write_text(baseline)
        with nothing_lost(project.folder, may_add=("out",)):
            done = dbbench(*(project.suite.name if word == "SUITE" else word for word in VERBS[verb][0]))
        assert done.exit_code == 0, done.output
        assert Path.cwd() == project.folder
        assert list(project.folder.glob("out*")), "what was asked for is elsewhere"
        assert '"status"' not in done.stdout, "what foreign code prints is not the command's"
        if verb == "run":
            assert len(list(project.folder.glob("out/traces/*.parquet"))) == 1
        if verb != "run" or place == "import":
            continue
        for path in sorted(project.folder.glob("out/**/*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()


@pytest.mark.slow
@pytest.mark.parametrize("place", ["import", "make_step", "step"])
@pytest.mark.parametrize("device", ["cpu", "fake"])
@pytest.mark.parametrize("kind", [*ENDS, *RAISES, *HARMLESS])
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


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*ENDS, *RAISES, *HARMLESS])
def test_no_check_ends_with_0_without_a_comparison(kind: str, make: Make, baseline: str) -> None:
    """Broken if there is a way to status 0 that does not come from a comparison of figures."""
    for part, place in CASES:
        project = make(part, place, (ENDS | RAISES | HARMLESS)[kind])
        (project.folder / "baseline").write_text(baseline)
        compared: list[int] = []

        def spy(*arguments: object, compared: list[int] = compared, check: object = gate.check) -> object:
            found = check(*arguments)  # type: ignore[operator]
            compared.append(found.compared)
            return found

        with mock.patch.object(gate, "check", spy):
            done = dbbench("check", "--fake", project.suite.name, "--baseline", "baseline")
        assert (done.exit_code == 0) == (kind in HARMLESS), done.output
        if done.exit_code == 0:
            assert compared and compared[0] > 0
