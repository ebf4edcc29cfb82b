"""Requests that a machine thinks up from the OpenAPI document: none may end in an error of the server's, or never.

    UNIAUDIO2_FUZZ_CASES=2000 pytest tests/server/test_fuzz.py

tries more of them. One line at the end says what came of them.
"""

from __future__ import annotations

import os

import pytest

from tests.server.conftest import Running, Tally

schemathesis = pytest.importorskip("schemathesis", reason="fuzzing needs the package schemathesis")
hypothesis = pytest.importorskip("hypothesis")
requests = pytest.importorskip("requests")

CASES = int(os.environ.get("UNIAUDIO2_FUZZ_CASES", "100"))


def test_no_request_breaks_the_server(running: Running, capsys: pytest.CaptureFixture[str]):
    schema = schemathesis.openapi.from_url(f"{running.url}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) > 10
    tally = Tally()
    for operation in operations:

        @hypothesis.settings(
            max_examples=max(1, CASES // len(operations)),
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(case=operation.as_strategy())
        def check(case):
            try:
                answer = case.call(timeout=120)
            except (TimeoutError, requests.Timeout):
                tally.statuses["hang"] += 1
                raise
            tally.statuses[answer.status_code] += 1
            assert answer.status_code < 500, f"{case.method} {case.path}: {answer.text}"
            if answer.status_code >= 400:
                assert {"message", "type", "param", "code"} == set(answer.json()["error"])

        try:
            check()
        except BaseException:
            with capsys.disabled():
                print(f"\n{tally.line('fuzz, until it failed')}")
            raise
    with capsys.disabled():
        print(f"\n{tally.line('fuzz')}")
    assert running.server.jobs.unfinished == 0
