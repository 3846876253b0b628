"""The charting library as the page carries it: packed, and allowed to run by its hash alone."""

from __future__ import annotations

import base64
import gzip
import hashlib
from dataclasses import dataclass
from importlib import resources


@dataclass(frozen=True)
class Library:
    """plotly.js: gzip in base64, and what a content security policy names it by."""

    packed: str
    policy_source: str


def plotly_js() -> Library:
    """Return plotly.js from the plotly package; unpacked it is 4.8 MB, packed 2 MB."""
    body = (resources.files("plotly") / "package_data" / "plotly.min.js").read_bytes()
    packed = base64.b64encode(gzip.compress(body, compresslevel=9, mtime=0)).decode("ascii")
    return Library(packed, policy_source(body))


def policy_source(script: bytes) -> str:
    """Return the source expression that allows exactly this inline script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode('ascii')}'"
