"""What is installed: the packages, their data and the shipped suites."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import zipfile
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_every_package_is_in_the_list() -> None:
    """Broken if a new room works in a checkout and is missing from the wheel."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "dbbench").rglob("__init__.py")}
    assert set(listed) == found | {"dbbench.suites"}


def test_every_dependency_is_pinned() -> None:
    """Broken if an installation with constraints.txt is not the one that the figures were taken with."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {line.partition("==")[0].lower() for line in lines if "==" in line and not line.startswith("#")}
    wanted = [*project["dependencies"], *chain.from_iterable(project["optional-dependencies"].values())]
    names = {wish.replace("<", ">").partition(">")[0].strip().lower() for wish in wanted}
    assert names <= pins


@pytest.mark.slow
def test_the_wheel_has_the_suites_and_the_data_and_finds_them(tmp_path: Path) -> None:
    """Broken if ``dbbench run vision`` works in a checkout only, or a suite is shipped in two copies."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    built = tmp_path / "built"
    subprocess.run([*pip, "wheel", "--no-deps", "-w", str(built), str(ROOT)], check=True, timeout=300)
    (wheel,) = built.glob("dbbench-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    suites = [name for name in names if name.endswith(".yaml") and "suites" in name]
    assert {name for name in suites if name.count("/") == 2} == {
        f"dbbench/suites/{path.name}" for path in (ROOT / "suites").glob("*.yaml")
    }
    for folder in ("dbbench/data/files", "dbbench/report", "dbbench/report/page/files"):
        here = {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).glob("*") if path.is_file()}
        assert here <= set(names)
    target = tmp_path / "installed"
    subprocess.run([*pip, "install", "--no-deps", "--target", str(target), str(wheel)], check=True, timeout=300)
    done = subprocess.run(
        [sys.executable, "-c", "import dbbench.suite.load as l; print(l.__file__); print(l.load_suite('vision')[1])"],
        env=os.environ | {"PYTHONPATH": str(target)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    module, label = done.stdout.splitlines()
    assert Path(module).is_relative_to(target)
    assert label == "vision.yaml"
