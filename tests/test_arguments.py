"""The house grammar: whatever is given, the error names the argument, the rule and what was given."""

import json
import re
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch

from topobounds._arguments import argument_error, as_written, boolean, integer, integers, items, real

NO_INTEGERS = [
    None,
    True,
    np.bool_(True),
    np.array(True),
    torch.tensor(True),
    1.0,
    np.array(3.0),
    torch.tensor(3.0),
    np.array([3]),
    np.array([3, 4]),
    torch.tensor([3]),
    torch.tensor([3, 4]),
    "3",
    b"3",
    3j,
    [3],
    {},
    object,
    Fraction(1, 2),
]
NO_REALS = [
    None,
    True,
    np.bool_(True),
    torch.tensor(True),
    "0.5",
    b"0.5",
    0.5j,
    np.complex64(0.5),
    torch.tensor(0.5j),
    np.array([0.5]),
    np.array([0.5, 0.6]),
    torch.tensor([0.5]),
    torch.tensor([0.5, 0.6]),
    10**400,
    -(10**400),
    Fraction(10**400),
    float("nan"),
    object,
]


@pytest.mark.parametrize("value", NO_INTEGERS, ids=repr)
def test_what_is_no_integer_is_refused_in_the_grammar(value):
    with pytest.raises(ValueError, match=r"^Argument 'm' must be a positive integer, not .*\.$"):
        integer("m", value, 1)


@pytest.mark.parametrize("value", NO_REALS, ids=lambda value: f"{type(value).__name__}"[:20])
def test_what_is_no_number_is_refused_in_the_grammar(value):
    with pytest.raises(ValueError, match=r"^Argument 'p' must be a number in \[0, 1\], not .*\.$"):
        real("p", value, "a number in [0, 1]", 0.0, 1.0)


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3), np.array(3), torch.tensor(3)], ids=repr)
def test_integers_of_any_kind_are_integers(value):
    assert integer("m", value, 1) == 3
    assert type(integer("m", value, 1)) is int


@pytest.mark.parametrize(
    "value", [0.5, np.float32(0.5), np.array(0.5), torch.tensor(0.5), Fraction(1, 2), Decimal("0.5")]
)
def test_numbers_of_any_kind_are_numbers(value):
    assert real("p", value, "a number", 0.0, 1.0) == 0.5
    assert as_written(value) == Fraction(1, 2)


@pytest.mark.parametrize(
    ("value", "written"), [(0.1, "1/10"), (1e-05, "1/100000"), (np.float32(0.1), "1/10"), (3, "3")]
)
def test_a_number_is_read_as_it_is_written(value, written):
    assert as_written(value) == Fraction(written)


@pytest.mark.parametrize("values", [None, 5, True, "12", b"12", np.array(5), torch.tensor(5), object], ids=repr)
def test_what_cannot_be_gone_through_is_refused_in_the_grammar(values):
    with pytest.raises(ValueError, match=r"^Argument 'ks' must be a sequence of integers from 0 to 9, not .*\.$"):
        integers("ks", "k", values, 0, 9)


@pytest.mark.parametrize("values", [[1, 2], (1, 2), np.array([1, 2]), torch.tensor([1, 2]), {1: 0, 2: 0}], ids=repr)
def test_what_can_be_gone_through_is(values):
    assert integers("ks", "k", values, 0, 9) == [1, 2]
    assert items("ks", iter([1, None]), "anything") == [1, None]


def test_one_bad_integer_of_several_is_named():
    with pytest.raises(ValueError, match=r"^Argument 'k' must be an integer from 0 to 9, not None\.$"):
        integers("ks", "k", [1, None], 0, 9)


@pytest.mark.parametrize("value", ["no", 0, 1, None, np.array([True]), 1.0], ids=repr)
def test_only_true_and_false_are_true_and_false(value):
    with pytest.raises(ValueError, match=r"^Argument 'transposed' must be True or False, not .*\.$"):
        boolean("transposed", value)


@pytest.mark.parametrize("value", [True, np.bool_(True), np.array(True), torch.tensor(True)], ids=repr)
def test_true_of_any_kind_is_true(value):
    assert boolean("transposed", value) is True


@pytest.mark.parametrize("given", [np.arange(1000.0).reshape(40, 25), 10**400, "x" * 5000, list(range(3000))])
def test_what_is_shown_is_one_short_line(given):
    message = str(argument_error("m", "small", given))
    assert len(message) < 260
    assert "\n" not in message
    assert re.search(r" \.\.\. |\.\.\.", message)


def test_an_integer_that_python_does_not_write_is_named_by_its_size():
    given = json.loads("1" + "0" * 4000) * 10**1000
    assert (
        str(argument_error("m", "small", given))
        == f"Argument 'm' must be small, not an integer of {given.bit_length()} bits."
    )
