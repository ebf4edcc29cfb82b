"""A model of random weights for the tests of this folder."""

import pytest

from tests.tiny_model import make_tiny_model
from uniaudio2 import UniAudio2


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> UniAudio2:
    """Made once: tests leave it as it is."""
    return UniAudio2.from_pretrained(make_tiny_model(tmp_path_factory.mktemp("model") / "tiny"), device="cpu")
