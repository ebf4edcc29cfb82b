"""``POST /v1/audio/transcriptions``: what is said in a recording, whole or as it is found."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, File, Form, Request, Response, UploadFile
from fastapi.responses import PlainTextResponse

from uniaudio2.api.results import Segment, TextResult, join_texts
from uniaudio2.api.texts import as_text
from uniaudio2.audio import Recording
from uniaudio2.server.audio_in import read_recording
from uniaudio2.server.errors import APIError
from uniaudio2.server.jobs import described
from uniaudio2.server.speech import event
from uniaudio2.server.state import Server, The
from uniaudio2.server.strict_json import JSONAnswer

router = APIRouter(prefix="/v1/audio", tags=["transcriptions"])
LANGUAGES = {"en": "english", "zh": "chinese", "yue": "cantonese"}
"""Names as OpenAI's verbose answers have them."""

TextFormat = Literal["json", "text", "srt", "verbose_json", "vtt", "diarized_json"]


@router.post("/transcriptions", response_class=Response, responses={200: {"content": {"application/json": {}}}})
async def create_transcription(
    request: Request,
    server: The,
    file: Annotated[UploadFile, File(description="A recording: WAV, FLAC, Ogg, MP3; with PyAV also m4a, webm, video.")],
    model: Annotated[str, Form()] = "nano",
    language: Annotated[str | None, Form(description="en, zh or yue; found out where it is left out.")] = None,
    prompt: Annotated[str | None, Form(description="Passed over: the model takes none.")] = None,
    response_format: Annotated[TextFormat, Form()] = "json",
    temperature: Annotated[float, Form(ge=0.0, le=1.0)] = 0.0,
    timestamp_granularities: Annotated[list[str] | None, Form(alias="timestamp_granularities[]")] = None,
    include: Annotated[list[str] | None, Form(alias="include[]")] = None,
    stream: Annotated[bool, Form()] = False,
    beams: Annotated[int | None, Form(ge=1, le=64, description="Hypotheses; 1 is quickest.")] = None,
    shifts: Annotated[int | None, Form(ge=1, le=16, description="Shifted encodings; 1 is quickest.")] = None,
) -> Response:
    """Write down what is said.

    With ``stream`` as events: ``transcript.text.delta`` for every piece of the recording that is finished, then
    ``transcript.text.done``, whose text is all deltas joined.
    """
    _check(response_format, timestamp_granularities, include)
    data = await file.read()
    options: dict[str, Any] = {"language": language or None, "beams": beams, "shifts": shifts}
    if "word" in (timestamp_granularities or ()):
        options["word_timestamps"] = True
    if temperature > 0:
        options["temperature"] = temperature

    if stream:
        return await server.jobs.stream(
            request, lambda: _events(server, data, options), "text/event-stream", failed=_failed
        )
    result = await server.jobs.run(request, lambda: transcribed(server, data, options)[0])
    if response_format in ("srt", "vtt", "text"):
        return PlainTextResponse(as_text(result, None if response_format == "text" else response_format))
    if response_format == "verbose_json":
        return JSONAnswer(verbose(result, temperature))
    return JSONAnswer({"text": result.text, "usage": usage(server, result)})


def _check(form: str, granularities: list[str] | None, include: list[str] | None) -> None:
    if form == "diarized_json":
        message = (
            "response_format: diarized_json needs a model that tells speakers apart, which this is not: verbose_json"
        )
        raise APIError(400, message, param="response_format", code="unsupported_format")
    if granularities and not set(granularities) <= {"segment", "word"}:
        message = "timestamp_granularities: must be segment or word"
        raise APIError(400, message, param="timestamp_granularities", code="invalid_value")
    if include:
        message = (
            "include: there are no log-probabilities of single tokens: ask for verbose_json, which has each segment's"
        )
        raise APIError(400, message, param="include", code="unsupported_value")


def transcribed(
    server: Server, data: bytes, options: dict[str, Any], progress: Callable[[int, Segment], None] | None = None
) -> tuple[TextResult, Recording]:
    """The result for an uploaded file, and what was in it."""
    recording = read_recording(data, server.settings.max_audio_s)
    server.metrics.audio_in.inc(recording.duration_s)
    return server.model.transcribe(recording, progress=progress, **options), recording


def _events(server: Server, data: bytes, options: dict[str, Any]) -> Iterator[bytes]:
    """Deltas while the recording is worked on, then all of it."""
    from uniaudio2.server.pull import pulled

    said = ""

    def work(give: Callable[[Segment], None]) -> TextResult:
        return transcribed(server, data, options, lambda number, piece: give(piece))[0]

    for found in pulled(work):
        if isinstance(found, TextResult):
            yield event(type="transcript.text.done", text=found.text, usage=usage(server, found))
        elif found.text:
            whole = join_texts([said, found.text]) if said else found.text
            yield event(type="transcript.text.delta", delta=whole[len(said) :])
            said = whole


def _failed(error: Exception) -> bytes:
    """An error after the first event is an event."""
    return event(type="error", error=described(error))


def usage(server: Server, result: TextResult) -> dict[str, Any]:
    """Frames that the model read of the recording, and tokens of the text."""
    stream = server.model.codec.streams[0]
    heard = stream.num_frames(round(result.duration_s * stream.sample_rate))
    made = len(server.model.parts[1].encode(result.text))
    return {
        "type": "tokens",
        "input_tokens": heard,
        "input_token_details": {"audio_tokens": heard, "text_tokens": 0},
        "output_tokens": made,
        "total_tokens": heard + made,
    }


def verbose(result: TextResult, temperature: float) -> dict[str, Any]:
    """OpenAI's verbose_json."""
    words = [word for part in result.segments for word in part.words]
    timed = [{"word": word.text, "start": round(word.start_s, 3), "end": round(word.end_s, 3)} for word in words]
    return {
        "task": "transcribe",
        "language": LANGUAGES.get(result.language or "", "unknown"),
        "duration": round(result.duration_s, 3),
        "text": result.text,
        "segments": [_segment(number, part, temperature) for number, part in enumerate(result.segments)],
        **({"words": timed} if timed else {}),
        "usage": {"type": "duration", "seconds": round(result.duration_s, 3)},
    }


def _segment(number: int, part: Segment, temperature: float) -> dict[str, Any]:
    raw = part.text.encode()
    return {
        "id": number,
        "seek": 0,
        "start": round(part.start_s, 3),
        "end": round(part.end_s, 3),
        "text": part.text,
        "tokens": [],
        "temperature": temperature,
        "avg_logprob": round(part.mean_log_probability or 0.0, 4),
        "compression_ratio": round(len(raw) / max(1, len(zlib.compress(raw))), 3),
        "no_speech_prob": round(part.no_speech_probability or 0.0, 4),
    }
