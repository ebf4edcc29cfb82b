"""Hours of mixed load: memory does not grow, nothing is lost, nothing hangs.

UNIAUDIO2_SOAK_MINUTES=120 pytest -m slow tests/server/test_soak.py -s
"""

from __future__ import annotations

import os
import random
import socket
import statistics
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path

import httpx2 as httpx
import pytest

from tests.server.conftest import clip, serving
from tests.server.test_limits import idle, waiting
from uniaudio2 import UniAudio2

MINUTES = float(os.environ.get("UNIAUDIO2_SOAK_MINUTES", "0"))
USERS = int(os.environ.get("UNIAUDIO2_SOAK_USERS", "64"))


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def user(
    url: str, number: int, until: float, statuses: Counter, seconds: list[float], lengths: dict[str, set[int]]
) -> None:
    """One of many who ask again and again; a tenth reads slowly, a tenth goes away in the middle."""
    chance = random.Random(number)
    recordings = [clip(length, seed=number) for length in (0.5, 1.0, 2.0)]
    with httpx.Client(base_url=url, timeout=600) as client:
        while time.monotonic() < until:
            began, way = time.monotonic(), chance.random()
            if way < 0.1:
                with waiting(url) as connection:
                    connection.recv(100)
                statuses["gone"] += 1
                continue
            if way < 0.2:
                with waiting(url) as connection:
                    for _ in range(20):
                        connection.recv(2000)
                        time.sleep(0.05)
                    connection.shutdown(socket.SHUT_RDWR)
                statuses["slow"] += 1
                continue
            if way < 0.6:
                text = chance.choice(["Yes, it is.", "No.", "Seven and nine make sixteen."])
                answer = client.post("/v1/audio/speech", json={"input": text, "response_format": "wav"})
                lengths[text].add(len(answer.content))
            elif way < 0.8:
                answer = client.post("/v1/audio/transcriptions", files={"file": ("a", chance.choice(recordings))})
            elif way < 0.9:
                answer = client.post("/v1/codec/encode", files={"file": ("a", chance.choice(recordings))})
            else:
                answer = client.post("/v1/tasks/tta", data={"caption": "a dog", "max_duration_s": "0.8"})
            statuses[answer.status_code] += 1
            seconds.append(time.monotonic() - began)


@pytest.mark.slow
@pytest.mark.skipif(not MINUTES, reason="takes long: set UNIAUDIO2_SOAK_MINUTES, for example to 30")
def test_nothing_grows_under_load(model: UniAudio2):
    statuses: Counter = Counter()
    seconds: list[float] = []
    levels: list[float] = []
    lengths: dict[str, set[int]] = defaultdict(set)
    with serving(lambda: model, waiting=2 * USERS) as running:
        until = time.monotonic() + 60 * MINUTES
        users = [
            threading.Thread(target=user, args=(running.url, number, until, statuses, seconds, lengths))
            for number in range(USERS)
        ]
        for each in users:
            each.start()
        while any(each.is_alive() for each in users):
            time.sleep(60 * MINUTES / 40)
            levels.append(resident_mb())
        assert idle(running, 60)
    ordered = sorted(seconds)
    print(dict(statuses), f"p50 {ordered[len(ordered) // 2]:.2f} s, p99 {ordered[int(len(ordered) * 0.99)]:.2f} s")
    print("resident, MB:", [round(level) for level in levels])
    assert set(statuses) <= {200, "gone", "slow"}
    eighth = max(1, len(levels) // 8)
    warm, last = (statistics.mean(part) for part in (levels[4 * eighth : 6 * eighth], levels[-eighth:]))
    assert last < 1.05 * warm, "memory grows"
    assert all(len(found) == 1 for found in lengths.values()), "answers are mixed up"
