"""The command line: one short function a verb, which composes the rooms that the verb needs.

Whatever is heavy is imported inside the verb, so that ``dbbench --help`` imports no torch, pandas or matplotlib. Help
lists the verbs in the order of these imports.
"""

from dbbench.cli import run, publish, check, estimate, search, profile, method, about  # noqa: I001
from dbbench.cli.app import app

__all__ = ["about", "app", "check", "estimate", "method", "profile", "publish", "run", "search"]
