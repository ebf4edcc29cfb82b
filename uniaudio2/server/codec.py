"""``/v1/codec``: recordings to codes and back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import torch
from fastapi import APIRouter, File, Form, Request, Response, UploadFile

from uniaudio2.audio import SAMPLE_RATE
from uniaudio2.codes import AudioCodes
from uniaudio2.errors import UserError
from uniaudio2.server.audio_in import memory_file, read_recording
from uniaudio2.server.audio_out import MEDIA_TYPES, Format, encoder
from uniaudio2.server.errors import APIError
from uniaudio2.server.state import Server, The
from uniaudio2.server.strict_json import JSONAnswer, read_json

router = APIRouter(prefix="/v1/codec", tags=["codec"])
SAFETENSORS = "application/vnd.safetensors"


@router.post(
    "/encode", response_class=Response, responses={200: {"content": {SAFETENSORS: {}, "application/json": {}}}}
)
async def encode(
    request: Request,
    server: The,
    file: Annotated[UploadFile, File(description="A recording.")],
    response_format: Annotated[Literal["json", "safetensors"], Form()] = "json",
) -> Response:
    """The codes of a recording: JSON with what is known of each stream, or a file as ``uniaudio2 encode`` writes it."""
    data = await file.read()

    def work() -> AudioCodes:
        recording = read_recording(data, server.settings.max_audio_s)
        server.metrics.audio_in.inc(recording.duration_s)
        return server.model.encode(recording)

    codes = await server.jobs.run(request, work)
    if response_format == "safetensors":
        return Response(codes.to_bytes(), media_type=SAFETENSORS)
    return JSONAnswer(described_codes(server, codes))


def described_codes(server: Server, codes: AudioCodes) -> dict[str, Any]:
    """Codes of one clip for JSON, with the rates of their streams."""
    streams = [
        {
            "name": stream.name,
            "frame_rate_hz": float(stream.rate_hz),
            "codebook_size": stream.codebook_size,
            "bit_rate": stream.bit_rate,
            "codes": codes[stream.name][0].tolist(),
        }
        for stream in server.model.codec.streams
        if stream.name in codes.streams
    ]
    return {"sample_rate": codes.sample_rate, "num_samples": codes.num_samples, "streams": streams}


@router.post("/decode", response_class=Response, responses={200: {"content": {"audio/wav": {}}}})
async def decode(
    request: Request,
    server: The,
    file: Annotated[UploadFile, File(description="What encode answered, in either form.")],
    response_format: Annotated[Format, Form()] = "wav",
    seed: Annotated[int, Form(ge=0, lt=2**63)] = 0,
    kind: Annotated[Literal["speech", "sound"], Form()] = "speech",
) -> Response:
    """The waveform of codes, sent as it is made."""
    data = await file.read()
    encode = encoder(response_format)

    def pieces() -> Iterator[bytes]:
        codes = read_codes(server, data)
        if codes.duration_s > server.settings.max_audio_s:
            message = f"file: longer than the {server.settings.max_audio_s:g} s that this server takes: send parts"
            raise APIError(413, message, param="file", code="audio_too_long")
        for audio in server.model.decode_stream(codes, seed=seed, kind=kind):
            server.metrics.audio_out.inc(audio.shape[-1] / SAMPLE_RATE)
            if piece := encode.write(audio):
                yield piece
        yield encode.finish()

    return await server.jobs.stream(request, pieces, MEDIA_TYPES[response_format])


def read_codes(server: Server, data: bytes) -> AudioCodes:
    """Codes from either form.

    Raises:
        APIError: If they are damaged.
    """
    try:
        if not data.lstrip().startswith(b"{"):
            with memory_file(data) as path:
                return AudioCodes.load(path)
        given: Any = read_json(data)
        streams = {one["name"]: _whole(one["codes"]) for one in given["streams"]}
        return AudioCodes.of(streams, server.model.codec.streams, given.get("num_samples"))
    except (ValueError, TypeError, KeyError, RuntimeError, AttributeError, RecursionError, OverflowError) as error:
        reason = str(error).split(": ", 1)[-1]
        message = f"file: not the codes that /v1/codec/encode answers ({reason[:200]})"
        raise APIError(400, message, param="file", code="invalid_codes") from error


def _whole(codes: Any) -> torch.Tensor:
    """The codes (1, K, T) of one stream."""
    found = torch.tensor(codes, device="cpu")
    if found.numel() and found.dtype != torch.int64:
        raise UserError("codes must be whole numbers")
    return found.to(torch.int64)[None]
