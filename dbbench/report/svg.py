"""Makes matplotlib's SVG small enough to carry in a page; what is drawn stays the same to a hundredth of a point.

    smaller(text)

A hatch of circles is written as one tile of 72 points with half a megabyte of circles, and a stepped area as thousands
of points of which most lie on a line or twice in one place.
"""

from __future__ import annotations

import re
from itertools import pairwise

_HATCH = re.compile(r'<pattern [^>]*>\s*<rect [^>]*/>\s*<path d="(?P<outline>[^"]*)".*?</pattern>', re.DOTALL)
_TILE = 'width="72" height="72"'
_OUTLINE = re.compile(r'(?<= d=")[^"]*(?=")')
_DIGITS = re.compile(r"(\.\d\d)\d+")
_STRAIGHT = re.compile(r"[ML] (\S+) (\S+)\s*")

Point = tuple[float, float]


def smaller(svg: str) -> str:
    """Return ``svg`` with the same drawing in fewer characters."""
    return _OUTLINE.sub(lambda found: _outline(found[0]), _HATCH.sub(_one_period, svg))


def _one_period(pattern: re.Match[str]) -> str:
    """Cut a hatch of circles to what repeats: a row, and the next one, which is shifted by half a step."""
    circles = [f"M{part}" for part in pattern["outline"].split("M") if part.strip()]
    if len(circles) < 100 or "C" not in circles[0] or _TILE not in pattern[0]:
        return pattern[0]
    places = [(float(x), float(y)) for x, y in (circle.split()[1:3] for circle in circles)]
    heights = sorted({y for _, y in places})
    # a ring is two circles, whose lowest points differ by its stroke: what is close above another is of the same row
    rows = [heights[0], *(above for below, above in pairwise(heights) if above - below > 0.5)]
    period = 2 * round(rows[1] - rows[0], 3)
    near = "".join(c for c, (x, y) in zip(circles, places, strict=True) if max(abs(x), abs(y)) <= 2 * period)
    return pattern[0].replace(pattern["outline"], near).replace(_TILE, f'width="{period:g}" height="{period:g}"', 1)


def _outline(path: str) -> str:
    """Return a path with two decimals; one of straight lines also without the points that add nothing to it."""
    path = _DIGITS.sub(r"\1", " ".join(path.split()))
    if len(path) < 1_000 or not re.fullmatch(r"[MLz\d\s.e-]*", path):
        return path
    return "".join(_straight(part) for part in re.findall("M[^M]*", path))


def _straight(part: str) -> str:
    points = [(float(x), float(y)) for x, y in _STRAIGHT.findall(part)]
    kept: list[Point] = []
    for point in points:
        if kept and point == kept[-1]:
            continue
        if len(kept) > 1 and _between(kept[-2], kept[-1], point):
            kept.pop()
        kept.append(point)
    words = [f"M{kept[0][0]:g} {kept[0][1]:g}"]
    for (x, y), (to_x, to_y) in pairwise(kept):
        words.append(f"H{to_x:g}" if y == to_y else f"V{to_y:g}" if x == to_x else f"L{to_x:g} {to_y:g}")
    return "".join(words) + ("z" if part.rstrip().endswith("z") else "")


def _between(one: Point, middle: Point, other: Point) -> bool:
    """Whether ``middle`` lies on the way from one point to the other along an axis."""
    across = one[1] == middle[1] == other[1] and (middle[0] - one[0]) * (other[0] - middle[0]) > 0
    up = one[0] == middle[0] == other[0] and (middle[1] - one[1]) * (other[1] - middle[1]) > 0
    return across or up
