"""Every file that dbbench reads or writes goes through here: regular, bounded, whole or not at all.

A pipe, a device or a link to one would hang a reader for ever or fill its memory, so a reader refuses it. A writer
never leaves half a file, writes through what is no regular file, and replaces neither what the verb reads nor what
dbbench did not write.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from dbbench.errors import BadInput

#: More than any file of dbbench's own, or any data set's file that it reads.
MOST_BYTES = 4 * 2**30


def read(path: Path, most_bytes: int = MOST_BYTES) -> bytes:
    """Return the file's bytes; links are followed.

    Raises OSError, with the file and the reason in ``strerror``, where there is none, where it is no regular file (a
    folder, a pipe, a device), or has more than ``most_bytes``.
    """
    with _named(path):
        # without O_NONBLOCK, opening a pipe that nobody writes to waits for ever
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            status = os.fstat(handle)
            if stat.S_ISDIR(status.st_mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "is not a regular file")
            body = file.read(most_bytes + 1) if status.st_size <= most_bytes else b""
            if status.st_size > most_bytes or len(body) > most_bytes:
                raise OSError(errno.EFBIG, f"is longer than {most_bytes:,} bytes")
            return body


def write_atomically(path: Path, body: bytes) -> None:
    """Replace ``path`` by ``body`` so that a reader, or a crash at any instant, sees the old file or the new one.

    A link is followed. What exists and is no regular file, such as a pipe or a device, is written to and stays what it
    is. Raises OSError whose file is ``path``.
    """
    with _named(path):
        target = _target(path)
        if _is_special(target):
            target.write_bytes(body)
        else:
            _replace(target, body)


def append(path: Path, body: bytes) -> None:
    """Add ``body`` at the end of the file, which is made where there is none. Raises OSError whose file is ``path``."""
    with _named(path), open(path, "ab") as file:
        file.write(body)


def probe(path: Path) -> None:
    """Raise OSError now where `write_atomically` could not make ``path`` later: before the work, not after it.

    Nothing stays behind, folders that it needed excepted.
    """
    with _named(path):
        target = _target(path)
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if _is_special(target):
            if not os.access(target, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:80]}.dbbench.", suffix=".tmp")
        os.close(handle)
        os.unlink(name)


def check_outputs(outputs: Mapping[str, Path | None], inputs: Mapping[str, Path | None]) -> None:
    """Raise BadInput where a file to be written is one that is read, or two are the same; keys are the options' names.

    An output inside a folder that is an input is allowed only where it is no file that stands there already.
    """
    written: dict[tuple[int, int] | str, str] = {}
    for option, path in outputs.items():
        if path is None or str(path) == "-" or _is_special(Path(os.path.realpath(path))):
            continue
        mark = _identity(path)
        for name, read_path in inputs.items():
            if read_path is None:
                continue
            if mark == _identity(read_path) or (read_path.is_dir() and path.is_file() and _within(path, read_path)):
                raise BadInput(f"{path}: {option} would overwrite {name}; nothing was written")
        if mark in written:
            raise BadInput(f"{path}: {option} and {written[mark]} are the same file; nothing was written")
        written[mark] = option


def check_own(path: Path | None, option: str, marks: Iterable[bytes], force: bool = False) -> None:
    """Raise BadInput where ``path`` is a file that dbbench did not write: none of ``marks`` is in its first 4 KiB.

    An empty file is nobody's. ``force`` takes any.
    """
    if force or path is None or not path.is_file():
        return
    try:
        with open(path, "rb") as file:
            head = file.read(4096)
    except OSError:
        return  # the write says why
    if head and not any(mark in head for mark in marks):
        raise BadInput(f"{path}: {option} is a file that dbbench did not write; give another name, or --force")


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise


def _target(path: Path) -> Path:
    """Return where the links of ``path`` lead; OSError where they lead round."""
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    return target


def _is_special(path: Path) -> bool:
    return path.exists() and not path.is_file() and not path.is_dir()


def _identity(path: Path) -> tuple[int, int] | str:
    """Return what two names of one file have in common."""
    try:
        status = os.stat(path)
    except OSError:
        return os.path.realpath(path)
    return status.st_dev, status.st_ino


def _within(path: Path, folder: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def _replace(path: Path, body: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:80]}.dbbench.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)  # mkstemp's 0600 would hide a run from the colleague who shares the folder
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
