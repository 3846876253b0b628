"""Follows the threads that a step starts, and the tasks that it hands to pools: a dispatch mode is in force in one
thread only, and what runs on another would be missing from every figure.

A thread that was there before and takes work from a queue of its own cannot be followed. What it makes and autograd
keeps is noticed instead (`dbbench.measure.unseen`).
"""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

#: Gives the context, made in the thread that starts another, under which that other is to run; None to leave it alone.
Follow = Callable[[], AbstractContextManager[Any] | None]
#: Replaces an attribute until the recorder closes: (owner, name, replacement).
Patch = Callable[[Any, str, Any], None]


def follow_threads(patch: Patch, follow: Follow) -> None:
    """Run each thread that is started from now on, and each task given to a pool, under the context that ``follow``
    gives for it."""
    start, submit, start_raw = threading.Thread.start, ThreadPoolExecutor.submit, _thread.start_new_thread

    def started(thread: threading.Thread) -> None:
        context = follow()
        if context is not None:
            thread.run = _under(context, thread.run, then=lambda: thread.__dict__.pop("run", None))  # type: ignore[method-assign]
        try:
            start(thread)
        except BaseException:
            thread.__dict__.pop("run", None)
            raise

    def submitted(pool: ThreadPoolExecutor, task: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        context = follow()
        return submit(pool, task if context is None else _under(context, task), *args, **kwargs)

    def started_raw(task: Callable[..., Any], *details: Any) -> int:
        context = follow()
        return start_raw(task if context is None else _under(context, task), *details)

    patch(threading.Thread, "start", started)
    patch(ThreadPoolExecutor, "submit", submitted)
    patch(_thread, "start_new_thread", started_raw)
    patch(_thread, "start_new", started_raw)


def _under(
    context: AbstractContextManager[Any], task: Callable[..., Any], then: Callable[[], Any] = lambda: None
) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            with context:
                return task(*args, **kwargs)
        finally:
            then()

    return run
