"""Two copies behind the same routes by Ray Serve, on one machine; skipped where Ray is not installed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2 as httpx
import pytest

from tests.server.conftest import clip
from tests.tiny_model import make_tiny_model

pytest.importorskip("ray.serve", reason="needs the extra 'ray'")
pytestmark = pytest.mark.slow

START_S = 240
SERVE = """
import sys
from ray import serve
from uniaudio2.server.ray_app import build
serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[2])})
serve.run(build({"replicas": 2, "model": sys.argv[1], "cpus": 0.5, "device": "cpu"}), blocking=True)
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where two copies answer."""
    folder = tmp_path_factory.mktemp("ray")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    # A slow machine may take longer to start a proxy than the 5 s that Ray gives it.
    slow = {"RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60", "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "60"}
    environment = {**os.environ, **slow, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(Path.cwd())}
    log = (folder / "log").open("w")
    command = [sys.executable, "-c", SERVE, str(make_tiny_model(folder / "model")), str(port)]
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    address, until = f"http://127.0.0.1:{port}", time.monotonic() + START_S
    try:
        while True:
            try:
                if httpx.get(f"{address}/ready", timeout=5).status_code == 200:
                    break
            except httpx.HTTPError:
                pass
            if process.poll() is not None or time.monotonic() > until:
                pytest.fail((folder / "log").read_text()[-3000:])
            time.sleep(1)
        yield address
    finally:
        process.terminate()
        process.wait(60)


def test_both_copies_answer_alike(url: str) -> None:
    """Transcripts, speech and errors as from one server; two processes share the work."""
    files = {"file": ("a.wav", clip(1.0))}

    def ask(_: int) -> tuple[str, bytes]:
        heard = httpx.post(f"{url}/v1/audio/transcriptions", files=files, timeout=120).raise_for_status()
        body = {"model": "nano", "input": "hello there", "voice": "default", "response_format": "pcm"}
        spoken = httpx.post(f"{url}/v1/audio/speech", json=body, timeout=120).raise_for_status()
        return heard.json()["text"], spoken.content

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(17)))  # an odd number: no two copies answer equally many
    assert len(set(answers)) == 1 and len(answers[0][1]) > 1000
    bad = httpx.post(f"{url}/v1/audio/transcriptions", files={"file": ("a.wav", b"")}, timeout=60)
    assert bad.status_code == 400 and "error" in bad.json()
    heard: set[float] = set()  # seconds of audio that each copy has received
    for _ in range(200):
        metrics = httpx.get(f"{url}/metrics", timeout=30).text
        line = next(line for line in metrics.splitlines() if line.startswith("uniaudio2_audio_heard_seconds_total"))
        heard.add(float(line.split()[1]))
        if len(heard) == 2:
            break
    assert len(heard) == 2 and min(heard) > 0 and sum(heard) == pytest.approx(17.0)
