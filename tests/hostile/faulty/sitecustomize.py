"""Lets one read or write of dbbench's own files fail, in this process or in any that it starts.

``DBBENCH_FAULT`` is ``read|write:NUMBER:ERRNO:COUNTER:FOLDER``: the NUMBER-th in FOLDER fails, over all processes,
which count in the file COUNTER.
"""

import errno
import os


def _install(kind: str, number: str, name: str, counter: str, folder: str) -> None:
    code, real_open, real_replace = getattr(errno, name), os.open, os.replace

    def count(path: object) -> None:
        if not str(path).startswith(folder):
            return
        handle = real_open(counter, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(handle, b".")
        place = os.fstat(handle).st_size - 1
        os.close(handle)
        if place == int(number):
            raise OSError(code, os.strerror(code))

    def replace(source: str, target: str, **kwargs: object) -> None:
        if kind == "write" and ".dbbench." in str(source):
            count(target)
        real_replace(source, target, **kwargs)

    def opened(path: object, flags: int, *args: object, **kwargs: object) -> int:
        if kind == "read" and flags == os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC:
            count(path)
        return real_open(path, flags, *args, **kwargs)

    os.open, os.replace = opened, replace


if os.environ.get("DBBENCH_FAULT"):
    _install(*os.environ["DBBENCH_FAULT"].split(":"))
