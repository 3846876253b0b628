"""dbbench: measures what memory-efficient training methods cost and what they learn."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dbbench.profile.ledger import Ledger

__all__ = ["Ledger", "__version__"]

try:
    __version__ = version("dbbench")
except PackageNotFoundError:  # run from a checkout that was never installed
    __version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import what needs torch only when it is asked for: ``dbbench --help`` is to stay quick."""
    if name == "Ledger":
        from dbbench.profile.ledger import Ledger

        return Ledger
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def load_ipython_extension(shell: Any) -> None:
    """Give a notebook ``%%memory_ledger``, by ``%load_ext dbbench``."""
    from dbbench.notebook import load

    load(shell)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
