"""Stopping once neural persistence no longer grows."""

import math

import numpy as np
import pytest

from topobounds import stopping_epoch


def test_it_stops_after_so_many_epochs_without_growth():
    assert stopping_epoch([1, 2, 3, 3, 3, 3, 9], patience=1, burn_in=0) == 4
    assert stopping_epoch([1, 2, 3, 3, 3, 3, 9], patience=3, burn_in=0) == 6
    assert stopping_epoch([1, 2, 3, 3, 3, 3, 9], patience=4, burn_in=0) is None


def test_growth_in_between_starts_the_count_anew():
    assert stopping_epoch([1, 0, 2, 0, 3, 0, 0], patience=2, burn_in=0) == 7


def test_a_value_below_the_largest_is_no_growth():
    assert stopping_epoch([5, 1, 2, 3], patience=3, burn_in=0) == 4


def test_the_burn_in_is_not_looked_at():
    assert stopping_epoch([5, 1, 2, 3, 3], patience=1, burn_in=1) == 5
    assert stopping_epoch([5, 5, 5, 5], patience=2, burn_in=1) == 4
    assert stopping_epoch([5, 5, 5, 5], patience=1, burn_in=9) is None


def test_growth_has_to_exceed_the_least_difference():
    assert stopping_epoch([1.0, 1.25, 1.5, 1.75], patience=1, burn_in=0, min_delta=0.25) == 2
    assert stopping_epoch([1.0, 1.5, 2.0], patience=1, burn_in=0, min_delta=0.25) is None


def test_slow_growth_is_measured_from_the_last_improvement():
    assert stopping_epoch([1.0, 1.25, 1.5, 1.75], patience=2, burn_in=0, min_delta=0.25) is None


def test_no_epochs_are_no_stop():
    assert stopping_epoch([], patience=1, burn_in=0) is None
    assert stopping_epoch(np.arange(100), patience=1, burn_in=0) is None
    assert stopping_epoch(iter(np.float32([1, 1])), patience=1, burn_in=0) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1], 0, 0), "Argument 'patience' must be a positive integer, not 0."),
        (([1], 1, -1), "Argument 'burn_in' must be a non-negative integer, not -1."),
        (([1], 1, 0, -0.5), "Argument 'min_delta' must be a number of at least 0, not -0.5."),
        (([1, math.nan], 1, 0), "Argument 'series' must be a sequence of finite numbers, not nan."),
        ((3, 1, 0), "Argument 'series' must be a sequence of numbers, not 3."),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        stopping_epoch(*arguments)
