"""Requests that a machine thinks up from the OpenAPI document: none may end in an error of the server's, or never.

    UNIAUDIO2_FUZZ_CASES=2000 pytest tests/server/test_fuzz.py

tries more of them.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest

from tests.server.conftest import Running

schemathesis = pytest.importorskip("schemathesis", reason="fuzzing needs the package schemathesis")
hypothesis = pytest.importorskip("hypothesis")

CASES = int(os.environ.get("UNIAUDIO2_FUZZ_CASES", "100"))


def test_no_request_breaks_the_server(running: Running):
    schema = schemathesis.openapi.from_url(f"{running.url}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) > 10
    statuses: Counter[int] = Counter()
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
            answer = case.call(timeout=120)
            statuses[answer.status_code] += 1
            assert answer.status_code < 500, f"{case.method} {case.path}: {answer.text}"
            if answer.status_code >= 400:
                assert {"message", "type", "param", "code"} == set(answer.json()["error"])

        check()
    print(dict(statuses))
    assert running.server.jobs.unfinished == 0
