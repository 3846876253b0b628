"""What a folder holds, before and after a command: nothing lost, nothing changed, nothing where it does not belong."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: By path relative to the folder: the kind of file, with its content's hash or a link's target.
Snapshot = dict[str, str]


def snapshot(folder: Path, ignore: tuple[str, ...] = ("__pycache__",)) -> Snapshot:
    """Return all that is in ``folder``, links not followed, devices and pipes not read."""
    found: Snapshot = {}
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in ignore]
        for name in [*folders, *files]:
            path = Path(root) / name
            found[str(path.relative_to(folder))] = _what(path)
    return found


def _what(path: Path) -> str:
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        return f"link to {os.readlink(path)}"
    if stat.S_ISREG(mode):
        return f"file {hashlib.sha256(path.read_bytes()).hexdigest()}"
    return f"{stat.S_IFMT(mode):o}"


def lost(before: Snapshot, after: Snapshot) -> list[str]:
    """Return what is gone or is not what it was."""
    return [name for name, what in before.items() if after.get(name) != what]


def added(before: Snapshot, after: Snapshot) -> list[str]:
    """Return what is there now and was not."""
    return [name for name in after if name not in before]


@contextmanager
def nothing_lost(folder: Path, may_add: tuple[str, ...] = ()) -> Iterator[None]:
    """Fail where ``folder`` loses or changes anything, or gets what does not begin with one of ``may_add``."""
    before = snapshot(folder)
    yield
    after = snapshot(folder)
    assert not lost(before, after), f"lost or changed: {lost(before, after)}"
    strangers = [name for name in added(before, after) if not name.startswith(may_add or ("\0",))]
    assert not strangers, f"written where nothing was asked for: {strangers}"
