from __future__ import annotations

from pathlib import Path

import pytest

from tests.train.codec.toy import make_corpus


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty tones and twenty noises with labels, in one shard."""
    return make_corpus(tmp_path_factory.mktemp("corpus"))
