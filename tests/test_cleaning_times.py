"""Rows keep the device's times, ascending and unique, whatever its clock and the network do."""

from __future__ import annotations

from collections import Counter

import pytest
from cleaning_rig import NOW, PRESS, SECOND, T0, burst, clean, noisy, of, quality, rejections, why

from edge.cleaning import Cleaner
from edge.memory import REMEMBERED
from edge.ordering import AHEAD_US
from edge.times import BEHIND_SEEN
from messages.quality import GOOD, UNCERTAIN, Why


def test_samples_out_of_order_are_sorted_and_flagged():
    series = of(clean(burst({"power_kw": [10.0, 11, 12, 13]}, at=[0, 2, 1, 3])))
    assert series.value == [10, 12, 11, 13] and series.at == [0, 1, 2, 3]
    assert quality(series) == [GOOD, GOOD | Why.LATE, GOOD, GOOD]


def test_exact_repeats_are_duplicates_within_and_across_bursts():
    cleaner = Cleaner([PRESS])
    first = clean(burst({"power_kw": [10.0, 10.0, 11.0]}, at=[0, 0, 5]), cleaner=cleaner)
    assert rejections(first) == {("power_kw", "duplicate"): 1} and of(first).at == [0, 5]
    second = clean(burst({"power_kw": [11.0, 12.0]}, at=[5, 6]), cleaner=cleaner)
    assert rejections(second) == {("power_kw", "duplicate"): 1} and of(second).value == [12.0]


def test_another_value_at_a_known_time_moves_by_a_microsecond():
    cleaner = Cleaner([PRESS])
    first = of(clean(burst({"power_kw": [10.0, 10.5, 11.0]}, at=[0, 0, 1]), cleaner=cleaner))
    assert first.at == [0, 1, 2] and first.value == [10, 10.5, 11]
    assert [why(first, i) for i in range(3)] == [Why(0), Why.TIME, Why.TIME]
    second = of(clean(burst({"power_kw": [10.2]}), cleaner=cleaner))
    assert second.t0 == T0 + 3 and why(second, 0) & Why.TIME
    assert rejections(clean(burst({"power_kw": [10.2]}), cleaner=cleaner)) == {("power_kw", "duplicate"): 1}


def test_a_late_row_finds_its_place_and_one_older_than_the_memory_is_refused():
    cleaner = Cleaner([PRESS])
    clean(burst({"power_kw": noisy(40)}), cleaner=cleaner)
    late = of(clean(burst({"power_kw": [50.0]}, t0=T0 + 38 * SECOND + 7), cleaner=cleaner))
    assert quality(late) == [GOOD | Why.LATE]
    old = clean(burst({"power_kw": [50.0]}, t0=T0 + (40 - REMEMBERED - 2) * SECOND), cleaner=cleaner)
    assert rejections(old) == {("power_kw", "too_late"): 1}


def test_a_burst_that_comes_many_bursts_late_fills_the_gap_it_left():
    cleaner = Cleaner([PRESS])
    made = [burst({"power_kw": noisy(50, seed=k)}, t0=T0 + k * 50 * SECOND, seq=k) for k in range(10)]
    for k in (0, 1, 4, 5, 6, 7, 8, 9):
        assert not clean(made[k], cleaner=cleaner, now=T0 + 500 * SECOND).rejected
    cleaner = Cleaner([PRESS], cleaner.snapshot())
    for k in (3, 2):
        late = of(clean(made[k], cleaner=cleaner, now=T0 + 500 * SECOND))
        assert late.value == made[k].columns["power_kw"] and set(quality(late)) == {GOOD | Why.LATE}
    again = made[3].model_copy(update={"seq": 10})  # what was filled is closed
    assert rejections(clean(again, cleaner=cleaner, now=T0 + 500 * SECOND)) == {("power_kw", "too_late"): 50}


def test_a_null_at_a_known_time_tells_nothing_new():
    cleaner = Cleaner([PRESS])
    cleaned = clean(burst({"power_kw": [10.0, None, 11.0]}, at=[0, 0, 5]), cleaner=cleaner)
    assert rejections(cleaned) == {("power_kw", "duplicate"): 1} and of(cleaned).quality == GOOD
    assert rejections(clean(burst({"power_kw": [None]}), cleaner=cleaner)) == {("power_kw", "duplicate"): 1}


def test_a_late_row_is_not_doubted_because_of_what_came_after_it():
    cleaner = Cleaner([PRESS])
    clean(burst({"power_kw": noisy(10, level=10)}, seq=0), cleaner=cleaner)
    clean(burst({"power_kw": noisy(10, level=80)}, t0=T0 + 20 * SECOND, seq=2), cleaner=cleaner)
    late = of(clean(burst({"power_kw": [10.2]}, t0=T0 + 12 * SECOND, seq=1), cleaner=cleaner))
    assert late.quality == GOOD | Why.LATE and late.value == [10.2]


def test_bursts_that_fill_a_gap_together_leave_room_for_those_still_missing_between_them():
    cleaner = Cleaner([PRESS])

    def sent(seq, n=REMEMBERED + 4):
        values = [10 + seq + 0.01 * i for i in range(n)]
        return burst({"power_kw": values}, seq=seq, t0=T0 + seq * 20 * SECOND)

    for seqs in ([0], [8], [1, 2, 5, 7], [3, 6], [4]):
        found = clean(*map(sent, seqs), cleaner=cleaner)
        assert not found.rejected and found.rows == 20 * len(seqs), seqs


def test_a_gap_that_one_metric_filled_is_closed_for_it():
    cleaner = Cleaner([PRESS])

    def send(metric, second, n, seq):
        return clean(burst({metric: noisy(n, 20, 0.1, seq)}, t0=T0 + second * SECOND, seq=seq), cleaner=cleaner)

    send("temp_degc", 0, 10, 0)
    send("power_kw", 30, 10, 2)
    send("temp_degc", 10, 10, 1)
    send("temp_degc", 40, 30, 3)
    assert rejections(send("temp_degc", 12, 3, 4)) == {("temp_degc", "too_late"): 3}


def test_a_time_before_1970_is_refused():
    assert rejections(clean(burst({"power_kw": [1.0, 2.0]}, t0=5, at=[-10, 0]))) == {("power_kw", "clock"): 1}


def test_a_clock_ahead_is_flagged_and_its_rows_keep_their_times():
    series = of(clean(burst({"power_kw": noisy(3)}, t0=NOW + AHEAD_US + 1)))
    assert series.t0 == NOW + AHEAD_US + 1 and set(quality(series)) == {UNCERTAIN | Why.TIME}
    assert of(clean(burst({"power_kw": [50.0]}, t0=NOW + AHEAD_US))).quality == GOOD


def test_an_old_backlog_is_not_a_wrong_clock_but_a_constant_lag_is():
    cleaner = Cleaner([PRESS])
    for k in range(20):  # a backlog drains: the lag shrinks
        t0 = T0 + k * 300 * SECOND
        assert of(clean(burst({"power_kw": [50.0]}, t0=t0), cleaner=cleaner, now=T0 + 86_400 * SECOND)).quality == GOOD
    found = []
    for k in range(20, 20 + BEHIND_SEEN + 2):
        t0 = T0 + k * 300 * SECOND
        found.append(of(clean(burst({"power_kw": [50.0]}, t0=t0), cleaner=cleaner, now=t0 + 1000 * SECOND)).quality)
    assert found == [GOOD] * (BEHIND_SEEN - 1) + [UNCERTAIN | Why.TIME] * 3


@pytest.mark.parametrize("skew_s", [61, 200, 3600, 75 * 365 * 86400])
def test_a_clock_that_is_put_back_loses_nothing_and_repeats_no_time(skew_s):
    cleaner = Cleaner([PRESS])
    seen = Counter()
    clock = T0
    for step in range(60):
        clock += 10 * SECOND
        skew = skew_s * SECOND if 10 <= step < 30 or 40 <= step < 45 else 0
        values = noisy(10, seed=step)
        cleaned = clean(burst({"power_kw": values}, t0=clock + skew), cleaner=cleaner, now=clock + 10 * SECOND)
        if skew_s > 100:
            assert not cleaned.rejected
        for one in cleaned.series:
            seen.update(one.t0 + at for at in one.at)
        if step == 35:
            cleaner = Cleaner([PRESS], cleaner.snapshot())
        if 32 <= step < 40 and skew_s > 100:
            assert all(not q & Why.LATE for one in cleaned.series for q in quality(one))
    assert max(seen.values()) == 1
    # A clock put back by a minute may cost what lies before the remembered rows, never more.
    assert sum(seen.values()) >= 600 - 2 * (skew_s if skew_s < 100 else 0)
