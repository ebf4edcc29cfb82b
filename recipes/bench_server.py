"""How fast a running server speaks to 1, 2, 4, 8 and 16 users at once, against one after another.

    uniaudio2 serve &
    python recipes/bench_server.py http://127.0.0.1:8000 [--users 1,2,4,8,16] [--requests 8] [--first-words 4] [--json]

Every user asks for the same twelve-word sentence, again and again. First audio: from the request to its first byte.
Real-time factor: a request's time over the length of its audio. Throughput: seconds of audio per second, all users
together. A figure for the machine as it is: a busy one is slower. Only the standard library is used.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlparse

TEXT = "The door is open and the old man walks into the garden."


def ask(url: str, seed: int, first_words: int = 0) -> tuple[float, float, float]:
    """First audio, whole time and length of the audio of one request, seconds."""
    host = urlparse(url)
    connection = http.client.HTTPConnection(host.hostname or "", host.port, timeout=600)
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get("OPENAI_API_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    began = time.perf_counter()
    body = json.dumps({"input": TEXT, "response_format": "pcm", "seed": seed, "first_words": first_words})
    connection.request("POST", "/v1/audio/speech", body, headers)
    answer = connection.getresponse()
    data = answer.read(1)
    first = time.perf_counter() - began
    data += answer.read()
    assert answer.status == 200, data
    connection.close()
    return first, time.perf_counter() - began, len(data) / 48000


def cpu_s(pid: int | None) -> float:
    """Seconds of CPU that a process has used."""
    if pid is None:
        return 0.0
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def measure(url: str, users: int, requests: int, pid: int | None = None, first_words: int = 0) -> dict[str, float]:
    """Figures of so many users, who make so many requests together."""
    began, used = time.perf_counter(), cpu_s(pid)
    with ThreadPoolExecutor(users) as threads:
        found = list(threads.map(lambda seed: ask(url, seed, first_words), range(requests)))
    whole, used = time.perf_counter() - began, cpu_s(pid) - used
    firsts, factors = sorted(each[0] for each in found), [each[1] / each[2] for each in found]
    return {
        "users": users,
        "requests": requests,
        "first_audio_ms": round(1000 * statistics.median(firsts)),
        "first_audio_worst_ms": round(1000 * firsts[-1]),
        "real_time_factor": round(statistics.median(factors), 3),
        "throughput": round(sum(each[2] for each in found) / whole, 3),
        "cpu_s_per_audio_s": round(used / sum(each[2] for each in found), 3),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--users", default="1,2,4,8,16")
    parser.add_argument("--requests", type=int, default=8, help="of each setting; at least one for each user")
    parser.add_argument("--first-words", type=int, default=0, help="most words of what is heard first; 0: a sentence")
    parser.add_argument("--pid", type=int, help="of the server, to count its CPU seconds")
    parser.add_argument("--json", action="store_true", help="one object for each setting")
    given = parser.parse_args()
    ask(given.url, 0, given.first_words)
    alone = 0.0
    if not given.json:
        print("users  first audio, median and worst (ms)  real-time factor  throughput  against one by one  CPU s")
    for users in map(int, given.users.split(",")):
        found = measure(given.url, users, max(users, given.requests), given.pid, given.first_words)
        alone = alone or found["throughput"]
        if given.json:
            print(json.dumps(found), flush=True)
        else:
            row = (
                f"{users:5}  {found['first_audio_ms']:15} {found['first_audio_worst_ms']:18}",
                f"{found['real_time_factor']:16}  {found['throughput']:10}",
                f"{found['throughput'] / alone:18.2f}  {found['cpu_s_per_audio_s']:5}",
            )
            print("  ".join(row), flush=True)


if __name__ == "__main__":
    main()
