"""Hours of mixed load: memory does not grow, nothing is lost, nothing hangs.

    UNIAUDIO2_SOAK_MINUTES=120 pytest -m slow tests/server/test_soak.py

Sixty-four users ask without a pause, unless `UNIAUDIO2_SOAK_PAUSE_S` gives them one. One line at the end says what came
of it.
"""

from __future__ import annotations

import os
import random
import socket
import statistics
import threading
import time
from collections import defaultdict

import httpx2 as httpx
import pytest

from tests.server.conftest import Tally, clip, resident_mb, serving
from tests.server.test_limits import idle, waiting
from uniaudio2 import UniAudio2

MINUTES = float(os.environ.get("UNIAUDIO2_SOAK_MINUTES", "0"))
USERS = int(os.environ.get("UNIAUDIO2_SOAK_USERS", "64"))
PAUSE_S = float(os.environ.get("UNIAUDIO2_SOAK_PAUSE_S", "0"))  # mean time between two requests of a user


class User(threading.Thread):
    """One of many who ask again and again; a tenth reads slowly, a tenth goes away in the middle."""

    def __init__(self, url: str, number: int, tally: Tally, seconds: list[float], lengths: dict[str, set[int]]) -> None:
        super().__init__()
        self.url, self.tally, self.seconds, self.lengths = url, tally, seconds, lengths
        self.chance = random.Random(number)
        self.recordings = [clip(length, seed=number) for length in (0.5, 1.0, 2.0)]

    def run(self) -> None:
        until = time.monotonic() + 60 * MINUTES
        with httpx.Client(base_url=self.url, timeout=600) as client:
            while time.monotonic() < until:
                try:
                    status = self.ask(client)
                except (TimeoutError, httpx.TimeoutException):
                    status = "hang"
                self.tally.statuses[status] += 1
                if PAUSE_S:
                    time.sleep(min(self.chance.expovariate(1 / PAUSE_S), max(until - time.monotonic(), 0)))

    def ask(self, client: httpx.Client) -> int | str:
        """Once; how it ended."""
        began, way = time.monotonic(), self.chance.random()
        if way < 0.1:
            with waiting(self.url) as connection:
                connection.recv(100)
            return "gone"
        if way < 0.2:
            with waiting(self.url) as connection:
                for _ in range(20):
                    connection.recv(2000)
                    time.sleep(0.05)
                connection.shutdown(socket.SHUT_RDWR)
            return "slow"
        recording = {"file": ("a", self.chance.choice(self.recordings))}
        if way < 0.6:
            text = self.chance.choice(["Yes, it is.", "No.", "Seven and nine make sixteen."])
            answer = client.post("/v1/audio/speech", json={"input": text, "response_format": "wav"})
            self.lengths[text].add(len(answer.content))
        elif way < 0.8:
            answer = client.post("/v1/audio/transcriptions", files=recording)
        elif way < 0.9:
            answer = client.post("/v1/codec/encode", files=recording)
        else:
            answer = client.post("/v1/tasks/tta", data={"caption": "a dog", "max_duration_s": "0.8"})
        self.seconds.append(time.monotonic() - began)
        return answer.status_code


@pytest.mark.slow
@pytest.mark.skipif(not MINUTES, reason="takes long: set UNIAUDIO2_SOAK_MINUTES, for example to 30")
def test_nothing_grows_under_load(model: UniAudio2, capsys: pytest.CaptureFixture[str]):
    seconds: list[float] = []
    levels: list[float] = []
    lengths: dict[str, set[int]] = defaultdict(set)
    with serving(lambda: model, waiting=2 * USERS) as running:
        tally = Tally()
        users = [User(running.url, number, tally, seconds, lengths) for number in range(USERS)]
        for each in users:
            each.start()
        while any(each.is_alive() for each in users):
            time.sleep(60 * MINUTES / 40)
            levels.append(resident_mb())
        quiet = idle(running, 60)
    ordered = sorted(seconds)
    median, worst = (ordered[int(len(ordered) * share)] for share in (0.5, 0.99))
    with capsys.disabled():
        print(f"\n{tally.line('soak')}; p50 {median:.2f} s, p99 {worst:.2f} s")
        print("resident, MB:", [round(level) for level in levels])
    assert quiet and set(tally.statuses) <= {200, "gone", "slow"}
    eighth = max(1, len(levels) // 8)
    warm, last = (statistics.mean(part) for part in (levels[4 * eighth : 6 * eighth], levels[-eighth:]))
    assert last < 1.05 * warm, "memory grows"
    assert all(len(found) == 1 for found in lengths.values()), "answers are mixed up"
