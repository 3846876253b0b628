"""The figures of the report as images that the page carries: for a wide screen, and in one column for a narrow one."""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace
from itertools import accumulate

from dbbench.report.figure_style import DOUBLE_COLUMN_INCHES, SINGLE_COLUMN_INCHES, NothingToDraw, as_svg
from dbbench.report.figure_style import page as figure_page
from dbbench.report.figures import COSTS, Figures
from dbbench.report.page.alternatives import alternative
from dbbench.report.tables import trained

#: Seven points, the size of a figure's text, are 13 pixels on the page.
_PIXELS_PER_INCH = 134


@dataclass(frozen=True)
class Image:
    """An SVG as a data URI, and the size in pixels at which its text is as large as the page's notes."""

    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class Drawn:
    """A figure for the template. ``reason`` says why there is no image; ``narrow`` may be left out for its size."""

    id: str
    title: str
    caption: str
    alternative: str
    wide: Image | None = None
    narrow: Image | None = None
    reason: str = ""

    @property
    def size(self) -> int:
        """Characters in the page."""
        return sum(len(image.uri) for image in (self.wide, self.narrow) if image)


def drawings(figures: Figures, room: int) -> list[Drawn]:
    """Return every figure in at most ``room`` characters.

    A figure that does not fit gives way to a sentence; those for a narrow screen stand only where all of them fit.
    """
    found = [_drawn(figures, name, caption) for name, caption in figures.captions.items()]
    if sum(one.size for one in found) > room:
        found = [replace(one, narrow=None) for one in found]
    spent = accumulate(one.size for one in found)
    return [one if so_far <= room else _too_large(one) for one, so_far in zip(found, spent, strict=True)]


def _too_large(one: Drawn) -> Drawn:
    return Drawn(one.id, one.title, one.caption, "", reason="too large for this page; the verb figure draws it alone")


def _drawn(figures: Figures, name: str, caption: str) -> Drawn:
    title, id = name.replace("_", " "), f"figure-{name.replace('_', '-')}"
    try:
        wide, narrow = (_image(figures, name, width) for width in (DOUBLE_COLUMN_INCHES, SINGLE_COLUMN_INCHES))
    except NothingToDraw as reason:
        return Drawn(id, title, caption, "", reason=f"not drawn, {reason}")
    described = trained(figures.table) if name in COSTS else figures.table
    return Drawn(id, title, caption, alternative(name, described), wide, narrow)


def _image(figures: Figures, name: str, width_inches: float) -> Image:
    with figure_page():
        figure = figures.figure(name, width_inches)
        body = as_svg(figure).encode()
    uri = f"data:image/svg+xml;base64,{base64.b64encode(body).decode('ascii')}"
    width, height = (round(float(inches) * _PIXELS_PER_INCH) for inches in figure.get_size_inches())
    return Image(uri, width, height)
