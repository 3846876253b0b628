"""``python -m dbbench``: the command line without an installed script."""

from __future__ import annotations

from dbbench.supervisor import main

main()
