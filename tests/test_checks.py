"""Numbers from outside: whole ones of any kind and size, ranges to the last digit."""

from __future__ import annotations

import re

import numpy as np
import pytest

from uniaudio2.checks import check_number

MOST = 2**63 - 1


@pytest.mark.parametrize("value", [0, MOST, np.int64(3), np.uint8(255)])
def test_whole_numbers_in_range(value: object) -> None:
    check_number("seed", value, 0, MOST, whole=True)


@pytest.mark.parametrize("value", [0.25, 1, np.float32(0.5), np.int64(1)])
def test_numbers_in_range(value: object) -> None:
    check_number("share", value, 0, 1.0)


@pytest.mark.parametrize(
    ("value", "whole", "message"),
    [
        (MOST + 1, True, f"must be at most {MOST}, got {MOST + 1}"),
        (10**400, True, f"must be at most {MOST}, got a number of more than 20 digits"),
        (-(10**400), True, "must be at least 0, got a number of more than 20 digits"),
        (10**400, False, f"must be at most {MOST}, got a number of more than 20 digits"),
        (np.int64(-1), True, "must be at least 0, got -1"),
        (-1e-40, False, "must be at least 0, got -1e-40"),
        (2.0, True, "must be a whole number, got 2.0"),
        (True, True, "must be a whole number, got True"),
        ("3", False, "must be a number, got '3'"),
        (float("nan"), False, "must be a finite number, got nan"),
    ],
)
def test_what_is_refused(value: object, whole: bool, message: str) -> None:
    with pytest.raises(ValueError, match=f"^seed {re.escape(message)}$"):
        check_number("seed", value, 0, MOST, whole=whole)
