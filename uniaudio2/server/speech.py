"""``POST /v1/audio/speech``: a text read aloud, sent as it is made."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Any, Literal, cast

from fastapi import APIRouter, Request, Response
from pydantic import AliasChoices, BaseModel, ConfigDict, Field
from torch import Tensor

from uniaudio2.api.model import UniAudio2
from uniaudio2.api.request import Sampling
from uniaudio2.api.results import AudioResult
from uniaudio2.api.speak import Speaking, plan, stream_parts
from uniaudio2.audio import SAMPLE_RATE
from uniaudio2.audio.tempo import stretched
from uniaudio2.server.audio_out import MEDIA_TYPES, Format, encoder
from uniaudio2.server.jobs import described
from uniaudio2.server.state import Server, The
from uniaudio2.server.strict_json import JSONRoute, write_json
from uniaudio2.server.voices import prompt_for

router = APIRouter(prefix="/v1/audio", tags=["speech"], route_class=JSONRoute)


class VoiceId(BaseModel):
    """A voice by its id."""

    id: str


class SpeechRequest(BaseModel):
    """OpenAI's fields, those of other open servers (stream, speaker, ref_audio), and ours. Others are passed over."""

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={"examples": [{"model": "nano", "input": "The door is open.", "voice": "default"}]},
    )

    input: Annotated[str, Field(min_length=1, description="The text; at most 4096 characters, or the server's limit.")]
    model: str = "nano"
    voice: Annotated[str | VoiceId, Field(validation_alias=AliasChoices("voice", "speaker"))] = "default"
    instructions: str | None = None
    response_format: Format = "mp3"
    speed: Annotated[float, Field(ge=0.25, le=4.0)] = 1.0
    stream_format: Literal["audio", "sse"] = "audio"
    stream: Annotated[bool, Field(description="The same as stream_format sse.")] = False
    language: Annotated[str | None, Field(description="en, zh or yue; found out where it is left out.")] = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    temperature: Annotated[float | None, Field(ge=0.0, le=100.0)] = None
    guidance: Annotated[float | None, Field(ge=1.0, le=100.0)] = None
    ref_audio: Annotated[str | None, Field(description="A recording of the voice, base64 or a data: address.")] = None
    best_of: Annotated[int | None, Field(ge=1, le=64, description="Attempts at a sentence.")] = None
    first_words: Annotated[
        int | None, Field(ge=0, le=1000, description="Most words of what is heard first; 0: a whole sentence.")
    ] = None


@router.post("/speech", response_class=Response, responses={200: {"content": {"audio/mpeg": {}}}})
async def create_speech(body: SpeechRequest, request: Request, server: The) -> Response:
    """Read a text aloud; the answer begins as soon as there is something to hear.

    With ``stream_format`` "sse" as events ``speech.audio.delta`` and ``speech.audio.done``, else as one file that is
    sent in chunks. A WAV file that is sent so has one header, which says no length, and then samples.
    """
    server.check_length("input", body.input)
    server.check_length("instructions", body.instructions or "")
    encode = encoder(body.response_format)
    headers = {"x-sample-rate": str(SAMPLE_RATE), "x-channels": "1"}  # which raw samples do not tell
    if body.instructions and not styled(server.model, body):
        headers["x-uniaudio2-ignored"] = "instructions"
    if body.stream or body.stream_format == "sse":
        return await server.jobs.stream(request, lambda: _events(server, body), "text/event-stream", headers, _failed)

    def pieces() -> Iterator[bytes]:
        for audio in spoken(server, body):
            if data := encode.write(audio):
                yield data
        yield encode.finish()

    return await server.jobs.stream(request, pieces, MEDIA_TYPES[body.response_format], headers)


def styled(model: UniAudio2, body: SpeechRequest) -> bool:
    """Whether there are instructions, and the model was trained to follow them."""
    return bool(body.instructions) and "instruct_tts" in (model.facts.trained_tasks or {})


def spoken(server: Server, body: SpeechRequest) -> Iterator[Tensor]:
    """Waveforms (1, n) as they are made."""
    model = server.model
    best_of = body.best_of or (1 if body.temperature == 0 else server.settings.best_of)
    voice = body.voice if isinstance(body.voice, str) else body.voice.id
    prompt = prompt_for(server, voice, body.ref_audio)
    sampling: Sampling = {"seed": body.seed, "temperature": body.temperature, "guidance": body.guidance}
    how = replace(Speaking.of(model, None, SAMPLE_RATE, 1, None, best_of, sampling), voice=prompt)
    first_words = server.settings.first_words if body.first_words is None else body.first_words
    pieces = stream_parts(model, plan(model, body.input, body.language, first_words or None), how)
    if styled(model, body):
        values = {"caption": body.instructions or "", "transcription": body.input}
        made = model.run("instruct_tts", values, language=body.language, **sampling)["audio"]
        pieces = iter([cast(AudioResult, made).audio])
    if body.speed != 1.0:
        pieces = stretched(pieces, body.speed)
    for piece in pieces:
        server.metrics.audio_out.inc(piece.shape[-1] / SAMPLE_RATE)
        yield piece


def _events(server: Server, body: SpeechRequest) -> Iterator[bytes]:
    """The same as server-sent events."""
    encode, samples = encoder(body.response_format), 0
    for audio in spoken(server, body):
        samples += audio.shape[-1]
        if data := encode.write(audio):
            yield _delta(data)
    if data := encode.finish():
        yield _delta(data)
    yield event(type="speech.audio.done", usage=usage(server.model, body.input, samples))


def _failed(error: Exception) -> bytes:
    """An error after the first event, the deadline too, is an event."""
    return event(type="speech.audio.error", error=described(error), partial_audio=True, action="discard")


def _delta(data: bytes) -> bytes:
    return event(type="speech.audio.delta", audio=base64.b64encode(data).decode())


def event(**fields: Any) -> bytes:
    """One server-sent event."""
    return b"data: " + write_json(fields).encode() + b"\n\n"


def usage(model: UniAudio2, text: str, samples: int) -> dict[str, int]:
    """Tokens of a text, frames of all streams of so many samples of audio, and both."""
    given = len(model.parts[1].encode(text))
    made = sum(stream.num_frames(samples) for stream in model.codec.streams)
    return {"input_tokens": given, "output_tokens": made, "total_tokens": given + made}
