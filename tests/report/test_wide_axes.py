"""An axis of values many times apart: the small ones would lie on top of one another on a linear one."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from dbbench.report.figure_style import logarithmic_if_wide


@pytest.mark.parametrize(
    ("values", "wide"),
    [([2.1, 2.7, 38.0], True), ([2.1, 2.7, 4.8], False), ([0.0, 38.0], False), ([-1.0, 9.0], False), ([], False)],
)
def test_an_axis_is_logarithmic_only_where_positive_values_are_many_times_apart(
    values: list[float], wide: bool
) -> None:
    """Broken if one bad score hides the differences of all others, or if a zero has no place on the axis."""
    axes = Figure().add_subplot()
    assert logarithmic_if_wide(axes, "y", values) is wide
    assert axes.get_yscale() == ("log" if wide else "linear")
    assert axes.get_xscale() == "linear"
    assert not wide or axes.yaxis.get_major_formatter()(20.0, 0) == "20", "a reader would have to decode 2 × 10¹"
