from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sutura.compare.report_page.markup import tag
from sutura.compare.report_page.scale import Scale, around, key, number, short


def test_places_by_hand() -> None:
    scale = Scale(-10, 30)
    assert [scale.at(v) for v in (-10, 0, 30, 99, -99)] == [0, 0.25, 1, 1, 0]
    assert scale.percent(0) == "25%"
    assert Scale(1, 100, log=True).at(10) == pytest.approx(0.5)


def test_ticks_are_round_and_within() -> None:
    assert Scale(0, 100).ticks(4) == [0, 25, 50, 75, 100]
    assert Scale(-3.4, 7.1).ticks(5) == [-2.5, 0, 2.5, 5]
    assert Scale(8e5, 2e8, log=True).ticks() == [1e6, 2e6, 5e6, 1e7, 2e7, 5e7, 1e8, 2e8]


@given(low=st.floats(-1e6, 1e6), width=st.floats(1e-3, 1e6), about=st.integers(1, 12))
def test_there_are_few_ticks_and_none_outside(low: float, width: float, about: int) -> None:
    scale = Scale(low, low + width)
    ticks = scale.ticks(about)
    assert len(ticks) <= about + 1
    slack = 1e-6 * (abs(low) + width)
    assert all(low - slack <= tick <= low + width + slack for tick in ticks)


def test_a_scale_around_one_value_has_width() -> None:
    scale = around([5.0], least=2.0, room=0.0)
    assert (scale.low, scale.high) == (4.0, 6.0)


def test_numbers_are_short() -> None:
    assert [number(v) for v in (1.0, 1.25, -0.001, 0.333)] == ["1", "1.25", "0", "0.33"]
    assert [short(v) for v in (12, 1200, 1_220_000, 8.6e9, 0.25)] == [
        "12",
        "1.2 k",
        "1.22 M",
        "8.6 B",
        "0.25",
    ]


def test_no_two_of_many_series_look_alike() -> None:
    keys = [str(key(index, "", line=line)) for line in (True, False) for index in range(20)]
    assert len(set(keys)) == len(keys)


def test_elements_escape_what_is_not_markup() -> None:
    made = tag("td", "<i>", tag("b", "&"), None, title='a "b"', class_="x", hidden=True, open=False)
    assert made == '<td title="a &#34;b&#34;" class="x" hidden>&lt;i&gt;<b>&amp;</b></td>'
    assert tag("rect", x="0") == '<rect x="0"/>'
