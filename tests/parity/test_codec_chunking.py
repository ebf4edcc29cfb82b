"""Windows of encoding and decoding, on the stand-ins of the fixture: what the published code does right is the same.

Its windows past the first are joined at the wrong places and get in-context latents of the wrong time, so for those
only their positions are compared; the corrected joins have their own tests in ``tests/codec/test_codec.py``.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.parity.fixtures import assert_close, load_fixture, load_json
from uniaudio2.codec import CodecConfig, ReasoningCodec
from uniaudio2.codec.codec import WindowConfig, window_starts
from uniaudio2.codes import UNIT, AudioCodes, num_units
from uniaudio2.config import load_config, preset_path

WINDOWS = {
    "token2audio_no_reason": WindowConfig(),
    "token2audio": WindowConfig(decode_codes=375, overlap_codes=96, context_latents=48),
}


@pytest.fixture
def codec() -> Iterator[ReasoningCodec]:
    codec = ReasoningCodec(load_config(CodecConfig, preset_path("codec", "tiny")))
    codec.config = dataclasses.replace(codec.config, windows=WindowConfig())
    yield codec


def cases(kind: str) -> list[dict[str, Any]]:
    return [case for case in load_json("codec_chunking")[kind] if "error" not in case]


def test_positions_of_decoder_windows() -> None:
    for case in cases("decode"):
        windows = WINDOWS[case["function"]]
        starts = window_starts(case["codes"], windows)
        assert starts == [window["first_code"] for window in case["windows"]]
        assert {window["n_codes"] for window in case["windows"]} == {windows.decode_codes}
        contexts = [window["context"] for window in case["windows"]]
        assert contexts == [0] + [windows.context_latents] * (len(starts) - 1)


def test_one_window(codec: ReasoningCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    """Latent t is 1000 + t, held for 960 samples: the same output as the published code's."""
    fixture = load_fixture("codec_chunking")

    def sample(condition: Tensor, **_: Any) -> Tensor:
        frames = condition.shape[1]
        return (1000 + torch.arange(frames, dtype=torch.float32)).view(1, frames, 1)

    monkeypatch.setattr(codec.decoder, "sample", sample)
    monkeypatch.setattr(codec.autoencoder, "decode", lambda z: z.repeat_interleave(960, dim=1).transpose(1, 2))
    for case in cases("decode"):
        if len(case["windows"]) > 1:
            continue
        codec.config = dataclasses.replace(codec.config, windows=WINDOWS[case["function"]])
        codes = torch.zeros(1, 8, case["codes"], dtype=torch.long)
        audio = codec.decode(AudioCodes(codes[:, :, :1], codes), fill="repeat", with_reasoning=False)
        assert audio.shape[2] == case["samples"]
        expected = fixture[f"{case['function']}_{case['codes']}/every_480th_sample"]
        assert_close(audio[:, 0, ::480], expected, atol=fixture.tolerances["every_480th_sample_atol"])


def test_encoder_windows(codec: ReasoningCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sample i has value i, code j of window k is 1000 k + j: the published windows, lengths and last codes."""
    first_samples: list[float] = []

    def encode_rows(audio: Tensor) -> tuple[Tensor, Tensor]:
        assert audio.shape == (1, 1, 75 * UNIT)
        number = 1000 * len(first_samples)
        first_samples.append(float(audio[0, 0, 0]))
        streams = [number + torch.arange(length).expand(1, 8, length) for length in (150, 375)]
        return streams[0], streams[1]

    monkeypatch.setattr(codec, "_encode_rows", encode_rows)
    for case in cases("encode"):
        first_samples.clear()
        audio = torch.arange(case["samples"], dtype=torch.float64)[None, None]
        codes = codec.encode(audio, fill="repeat", windows_at_once=1)
        assert first_samples == case["segment_first_sample"]
        assert codes.reasoning.shape[2] == case["reason_frames"]
        assert codes.reconstruction.shape[2] == case["rec_frames"]
        assert int(codes.reasoning[0, 0, -1]) == case["last_reason_code"]
        assert int(codes.reconstruction[0, 0, -1]) == case["last_rec_code"]


def test_padding() -> None:
    for case in cases("wave_pad"):
        assert num_units(case["samples"]) * UNIT == case["padded"]
