"""How figures and names are written: binary units, empty for what was not measured, and nothing that breaks a table."""

from __future__ import annotations

from typing import Any

import pandas as pd

from dbbench.plain import printable

MISSING = "–"
_MIB = 2**20


def mib(size_bytes: Any) -> str:
    """Bytes as MiB with two decimals; what is too small for them says so and is not shown as zero."""
    if pd.isna(size_bytes):
        return MISSING
    return "<0.01" if 0 < size_bytes < 0.005 * _MIB else f"{size_bytes / _MIB:,.2f}"


def signed_mib(size_bytes: int) -> str:
    """A difference in bytes as MiB, its sign always written."""
    return f"−{mib(-size_bytes)}" if size_bytes < 0 else f"+{mib(size_bytes)}"


def times(ratio: Any) -> str:
    """A ratio to the reference, e.g. ``0.53×``."""
    return MISSING if pd.isna(ratio) else f"{ratio:.2f}×"


def whole(count: Any) -> str:
    """A count, or a mean of counts, with separators."""
    return MISSING if pd.isna(count) else f"{count:,.0f}"


def flops(count: Any, uncounted: Any = None) -> str:
    """FLOPs with three digits and a decimal prefix, e.g. ``1.23 G``; ``≥ 1.23 G`` where ops were left ``uncounted``."""
    if pd.isna(count):
        return MISSING
    if is_lower_bound(uncounted):
        return f"≥ {flops(count)}"
    for prefix, unit in (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= unit:
            digits = f"{count / unit:#.3g}".rstrip(".")
            return f"{digits} {prefix}"
    return f"{count:.0f}"


def is_lower_bound(uncounted: Any) -> bool:
    """Tell whether there were ops without a FLOP formula, from a row's or a profile's account of them."""
    return uncounted is not None and uncounted is not pd.NA and uncounted == uncounted and bool(uncounted)


def flop_words(count: float, unit: str = "FLOPs", uncounted: Any = None) -> str:
    """Write a count of FLOPs with its unit, e.g. ``1.23 GFLOPs``; see `flops`."""
    words = flops(count, uncounted)
    return f"{words}{unit}" if words[-1].isalpha() else f"{words} {unit}"


def score(value: Any) -> str:
    """A figure of merit: three decimals below 10, two above, and three digits where it is huge."""
    if pd.isna(value):
        return MISSING
    if abs(value) >= 1e6:
        return f"{value:.2e}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.2f}"


def score_sd(mean: Any, sd: Any, n: Any) -> str:
    """``0.861 ± 0.004 (3)``; the deviation is left out, not zero, where there is one seed."""
    if pd.isna(mean):
        return MISSING
    return f"{score(mean)} (n = {n})" if pd.isna(sd) else f"{score(mean)} ± {score(sd)} (n = {n})"


def share(fraction: Any) -> str:
    """A fraction as per cent."""
    return MISSING if pd.isna(fraction) else f"{100 * fraction:.1f} %"


def p_value(p: float) -> str:
    """``p = 0.034``, and ``p < 0.001`` below that."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def seconds(value: Any) -> str:
    """Seconds with a unit that keeps three digits readable."""
    return MISSING if pd.isna(value) else f"{value:,.1f} s" if value >= 10 else f"{value:.3g} s"


def escaped(text: Any) -> str:
    """Text as Markdown shows it literally, on one line and inside a table's cell."""
    line = printable(text)
    for character in "\\`*_{}[]<>#|~$&!":
        line = line.replace(character, "\\" + character)
    return line


def code(text: Any) -> str:
    """Text as inline code, whatever backticks or bars it holds."""
    line = printable(text).replace("|", "\\|")
    fence = "`" * (1 + max((len(run) for run in _backtick_runs(line)), default=0))
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line}{pad}{fence}" if line else ""


def _backtick_runs(line: str) -> list[str]:
    runs = "".join(c if c == "`" else " " for c in line)
    return runs.split()


def markdown_table(header: list[str], rows: list[list[str]], left: int = 1) -> str:
    """A Markdown table; the first ``left`` columns are text, the others are set flush right. Cells are taken as is."""
    rule = ["---"] * left + ["---:"] * (len(header) - left)
    lines = [header, rule, *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
