"""``report.html``: one or several runs as one page that needs no network and no server.

write_page(Path("report.html"), [load(Path("runs/vision"))])
"""

from __future__ import annotations

from dbbench.report.page.build import write_page

__all__ = ["write_page"]
