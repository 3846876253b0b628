"""dbbench: measures what memory-efficient training methods cost and what they learn."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("dbbench")
except PackageNotFoundError:  # run from a checkout that was never installed
    __version__ = "0.1.0"
