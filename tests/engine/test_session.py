"""Caches stay where they are, recorded frames serve whoever is in the batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.engine.support import builder, ids_of, mixed_requests, model, request
from uniaudio2.engine import Engine, Generation, GenerationRequest
from uniaudio2.lm.cache import KVCache


def coming_and_going() -> list[GenerationRequest]:
    """24 requests of several kinds and lengths."""
    found = []
    for number in range(24):
        size, limits = 1 + number % 5, {"text": (2, 4 + number), "reasoning": (1, 1 + number % 6)}
        task = ("asr", "tts", "tta")[number % 3]
        found.append(request(task, size, limits=limits, guidance_scale=1.5 if number % 6 == 1 else 1.0))
    return found


class Copies:
    """Counts caches that are made and copied."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made = self.copied = 0
        make, resize = KVCache.__init__, KVCache.resize

        def counted_make(cache: KVCache, *args: Any, **options: Any) -> None:
            self.made += 1
            make(cache, *args, **options)

        def counted_resize(cache: KVCache, *args: Any) -> None:
            self.copied += 1
            resize(cache, *args)

        monkeypatch.setattr(KVCache, "__init__", counted_make)
        monkeypatch.setattr(KVCache, "resize", counted_resize)


def test_caches_are_made_once_and_never_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    copies = Copies(monkeypatch)
    engine = Engine(model(), builder(), max_batch=8)
    first = [ids_of(result) for result in engine.generate(coming_and_going())]
    assert copies.made == 4 and copies.copied == 0  # three stacks and the local decoder
    board = engine._session._board
    for _ in range(2):
        assert [ids_of(result) for result in engine.generate(coming_and_going())] == first
    assert copies.made == 4 and copies.copied == 0 and engine._session._board is board


def test_caches_grow_while_requests_run() -> None:
    engine = Engine(model(), builder(), max_batch=8)
    session, grown = engine.session(streaming=False), []
    asked = [request("asr", limits={"text": (60, 60)}), request("tts", 5), request("asr", 9, limits={"text": (90, 90)})]
    numbers, results = [], {}
    for step in range(400):
        if step in (0, 5, 10):
            numbers.append(session.add(asked[len(numbers)]))
        results |= {event.request: event.result for event in session.step() if event.result is not None}
        assert session._cache is not None
        grown.append((session._cache.batch_size, session._cache.max_positions))
        if len(results) == 3:
            break
    assert len(set(grown)) == 3 and grown == sorted(grown)
    alone = [ids_of(engine.generate([each])[0]) for each in asked]
    assert [ids_of(results[number]) for number in numbers] == alone


@pytest.mark.parametrize("sync_every", [1, 4])
def test_recorded_frames_serve_whoever_is_in_the_batch(monkeypatch: pytest.MonkeyPatch, sync_every: int) -> None:
    plain = [ids_of(result) for result in Engine(model(), builder()).generate(coming_and_going())]
    recorded: list[Callable[[], None]] = []

    def record(frame: Callable[[], None]) -> Callable[[], None]:
        """Stands for a CUDA graph: what the host knew at recording is kept, what tensors hold is read anew."""
        recorded.append(frame)
        return frame

    monkeypatch.setattr("uniaudio2.engine.session.record", record)
    engine = Engine(model(), builder(), max_batch=8, sync_every=sync_every)
    engine.cuda_graphs = True
    assert [ids_of(result) for result in engine.generate(coming_and_going())] == plain
    assert recorded
    engine.generate(coming_and_going())
    count = len(recorded)
    assert [ids_of(result) for result in engine.generate(coming_and_going()[::-1])] == plain[::-1]
    assert [ids_of(result) for result in engine.generate(coming_and_going())] == plain
    assert len(recorded) <= count + 8  # new mixtures of kinds at most: requests that come and go record nothing


def test_a_graph_is_kept_for_each_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uniaudio2.engine.session.record", lambda frame: frame)
    asked = [request("speech_s2s", 4, limits={"reasoning": (6, 6), "reconstruction": (15, 15)})]
    plain = [ids_of(result) for result in Engine(model(), builder()).generate(asked)]
    engine = Engine(model(), builder(), sync_every=1)
    engine.cuda_graphs = True
    assert [ids_of(result) for result in engine.generate(asked)] == plain
    windows = {engine.window(phase) for phase in asked[0].prompt.phases}
    assert {key[1] for key in engine._session._graphs} == windows


def test_sessions_are_apart() -> None:
    engine = Engine(model(), builder())
    session: Generation = engine.session(streaming=False)
    session.add(mixed_requests()[0])
    session.step()
    assert session.active and not engine._session.active
