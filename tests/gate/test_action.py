"""The composite action: its scripts run as they stand, with stand-ins for GitHub's client and for dbbench."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
#: What stands for GitHub's client: it notes how it was called, and knows the comments in a file.
CLIENT = """#!/bin/bash
printf '%s\\n' "$*" >> "$CALLS"
case "$*" in *--paginate*) cat "$COMMENTS" ;; esac
"""
#: What stands for the interpreter: it notes its words, writes what is asked for, and ends with a change.
PYTHON = """#!/bin/bash
printf '%s\\n' "$@" > "$WORDS"
while [ $# -gt 0 ]; do
  if [ "$1" = --markdown ]; then echo "<!-- dbbench check -->" > "$2"; fi
  shift
done
exit "${ENDS:-1}"
"""


@pytest.fixture
def steps() -> dict[str, dict[str, Any]]:
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    assert action["runs"]["using"] == "composite"
    return {step["name"]: step for step in action["runs"]["steps"]}


def run(step: dict[str, Any], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    tools = folder / "bin"
    tools.mkdir(exist_ok=True)
    for name, text in (("gh", CLIENT), ("python", PYTHON)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    given = {
        "PATH": f"{tools}:{os.environ['PATH']}", "RUNNER_TEMP": str(folder), "CALLS": str(folder / "calls"),
        "COMMENTS": str(folder / "comments"), "WORDS": str(folder / "words"), "GITHUB_OUTPUT": str(folder / "output"),
    }  # fmt: skip
    (folder / "comments").touch()
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
    return subprocess.run(command, cwd=folder, env=given | environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            {"STEPS": "train.py:make_step hf:gpt2", "BASELINE": "b"},
            ["train.py:make_step", "hf:gpt2", "--baseline", "b"],
        ),
        ({"SUITE": "smoke", "BASELINE": "b"}, ["--fake", "smoke", "--baseline", "b"]),
        ({}, []),
    ],
)
def test_what_is_asked_for_is_checked_and_its_status_kept(
    steps: dict[str, dict[str, Any]], tmp_path: Path, given: dict[str, str], expected: list[str]
) -> None:
    everything = {"STEPS": "", "SUITE": "", "BASELINE": "", "JUNIT": "j.xml"} | given
    done = run(steps["dbbench check"], tmp_path, **everything)
    assert done.returncode == 0, done.stderr
    words = (tmp_path / "words").read_text().split()
    assert words[:3] == ["-m", "dbbench", "check"]
    assert words[3 : 3 + len(expected)] == expected
    assert (tmp_path / "output").read_text() == "status=1\n"
    assert run(steps["Outcome"], tmp_path, STATUS="4").returncode == 4


@pytest.mark.parametrize("there", [True, False])
def test_a_comment_is_updated_where_there_is_one_and_made_where_not(
    steps: dict[str, dict[str, Any]], tmp_path: Path, there: bool
) -> None:
    (tmp_path / "dbbench-check.md").write_text("<!-- dbbench check -->\n")
    (tmp_path / "comments").write_text("77\n78\n" if there else "")
    done = run(steps["Comment"], tmp_path, REPOSITORY="a/b", NUMBER="5")
    assert done.returncode == 0, done.stderr
    last = (tmp_path / "calls").read_text().splitlines()[-1]
    body = f"--field body=@{tmp_path}/dbbench-check.md"
    if there:
        assert last == f"api --method PATCH repos/a/b/issues/comments/77 {body} --silent"
    else:
        assert last == f"api --method POST repos/a/b/issues/5/comments {body} --silent"


def test_without_a_report_there_is_no_comment(steps: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    assert run(steps["Comment"], tmp_path, REPOSITORY="a/b", NUMBER="5").returncode == 0
    assert not (tmp_path / "calls").exists()
