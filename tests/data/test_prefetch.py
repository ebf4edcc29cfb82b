"""Batches made ahead: order, errors, and nothing left running."""

from __future__ import annotations

import multiprocessing
import threading

import numpy as np
import pytest
import torch

from uniaudio2.data.prefetch import Prefetcher

MODES = ("process", "thread", "none")


def square(index: int) -> dict[str, torch.Tensor]:
    if index == 7:
        raise ValueError("seven is not liked")
    return {"value": torch.full((3,), float(index) ** 2, dtype=torch.bfloat16), "index": torch.tensor(index)}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("workers", [1, 2])
def test_batches_come_in_order_from_the_wanted_one_on(mode: str, workers: int) -> None:
    prefetcher = Prefetcher(square, 2, mode=mode, workers=workers)
    try:
        items = [next(prefetcher) for _ in range(4)]
    finally:
        prefetcher.close()
    assert [int(item["index"]) for item in items] == [2, 3, 4, 5]
    assert np.array_equal([float(item["value"][0]) for item in items], [4.0, 9.0, 16.0, 25.0])
    assert items[0]["value"].dtype == torch.bfloat16


def test_nothing_is_forked_once_cuda_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fresh processes make the batches, or a thread where they cannot be told how."""
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: True)
    monkeypatch.setattr("os.fork", lambda: pytest.fail("forked"))
    number = 2
    for make in (square, lambda index: square(index + number - 2)):
        prefetcher = Prefetcher(make, 2, workers=1)
        assert [int(next(prefetcher)["index"]) for _ in range(2)] == [2, 3]
        prefetcher.close()


@pytest.mark.parametrize("mode", ["process", "thread"])
def test_an_error_tells_its_batch_and_cause(mode: str) -> None:
    prefetcher = Prefetcher(square, 7, mode=mode)
    with pytest.raises(RuntimeError, match=r"(?s)batch 7 .*seven is not liked"):
        next(prefetcher)
    prefetcher.close()


@pytest.mark.parametrize("mode", MODES)
def test_closing_leaves_no_thread_and_no_process(mode: str) -> None:
    # A thread that is inside of torch while the interpreter ends would abort a run that has done its work.
    before = set(threading.enumerate())
    prefetcher = Prefetcher(square, 10, mode=mode, workers=2)
    next(prefetcher)
    prefetcher.close()
    assert set(threading.enumerate()) <= before
    assert not multiprocessing.active_children()
