"""Texts and sounds that repeat themselves."""

from __future__ import annotations

from collections.abc import Sequence

LOOP_IDS = 48  # last ids or frames that the loop guard looks at: 4 periods of 12 ids, or 40 frames
CHECK_EVERY = 4  # ids or frames between two looks


def repeats(items: Sequence[object], *, text: bool = True) -> int:
    """Length of the period with which the end of a sequence repeats itself, 0 when it does not.

    Choice: for text a run of 1 to 12 ids said at least four times and over at least 12 ids; for audio one whole frame
    40 times on end (3.2 s at 12.5 Hz), since silence and hums repeat a little by nature.
    """
    for period in range(1, 13 if text else 2):
        length = period * (max(4, -(-12 // period)) if text else 40)
        tail = items[-length:]
        if len(items) >= length and tail[period:] == tail[:-period]:
            return period
    return 0


def without_repeats(ids: Sequence[int]) -> list[int]:
    """Cut a repeating end down to its first round."""
    period, stop = repeats(ids), len(ids)
    if not period:
        return list(ids)
    while stop > period and ids[stop - 1] == ids[stop - 1 - period]:
        stop -= 1
    return list(ids[:stop])
