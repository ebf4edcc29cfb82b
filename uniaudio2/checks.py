"""Checks of numbers that come from outside: the one place that knows NaN, infinity, ranges and how to say so."""

from __future__ import annotations

import math
from numbers import Integral, Real

from uniaudio2.errors import UserError


def check_number(
    name: str,
    value: object,
    least: float = -math.inf,
    most: float = math.inf,
    *,
    whole: bool = False,
    above: bool = False,
) -> None:
    """Refuse what is no finite number in a range.

    Args:
        name: What the message calls it.
        value: What was given.
        least: Smallest value.
        most: Largest value.
        whole: Whether it must be an integer.
        above: Whether ``least`` itself is too small.

    Raises:
        ValueError: If it is not; one line with the range.
    """
    kind = "a whole number" if whole else "a number"
    if isinstance(value, bool) or not isinstance(value, Integral if whole else Real):
        raise UserError(f"{name} must be {kind}, got {value!r}")
    number = int(value) if isinstance(value, Integral) else float(value)  # a float would round a large seed
    if isinstance(number, float) and not math.isfinite(number):
        raise UserError(f"{name} must be a finite number, got {value}")
    got = _shown(number) if isinstance(number, int) else value
    if number < least or (above and number == least):
        raise UserError(f"{name} must be {'above' if above else 'at least'} {_shown(least)}, got {got}")
    if number > most:
        raise UserError(f"{name} must be at most {_shown(most)}, got {got}")


def _shown(number: float) -> str:
    """A whole number with its digits, unless there are hundreds."""
    if isinstance(number, int):
        return str(number) if abs(number) < 10**20 else "a number of more than 20 digits"
    return f"{number:g}"


def check_optional(name: str, value: object, least: float = -math.inf, most: float = math.inf, **how: bool) -> None:
    """The same where None stands for a default; see `check_number`."""
    if value is not None:
        check_number(name, value, least, most, **how)
