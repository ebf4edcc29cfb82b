"""``POST /v1/tasks/{name}``: every row of the task table."""

from __future__ import annotations

import base64
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import FormData, UploadFile

from uniaudio2.api.results import AudioResult
from uniaudio2.api.run import Output
from uniaudio2.audio import open_audio
from uniaudio2.codes import AudioCodes
from uniaudio2.server.audio_in import read_recording
from uniaudio2.server.audio_out import MEDIA_TYPES, encode_all
from uniaudio2.server.codec import described_codes
from uniaudio2.server.errors import APIError
from uniaudio2.server.state import Server, The
from uniaudio2.tasks import TASKS, Task, get_task, required

router = APIRouter(prefix="/v1/tasks", tags=["tasks"])


class Options(BaseModel):
    """Fields of the form beside the row's inputs; as the arguments of `UniAudio2.run`."""

    model_config = ConfigDict(extra="forbid")

    language: str | None = None
    max_duration_s: Annotated[float | None, Field(gt=0.0, le=600.0)] = None
    steps: Annotated[int | None, Field(ge=1, le=100)] = None
    untrained: bool = False
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    temperature: Annotated[float | None, Field(ge=0.0, le=100.0)] = None
    top_k: Annotated[int | None, Field(ge=1)] = None
    top_p: Annotated[float | None, Field(gt=0.0, le=1.0)] = None
    guidance: Annotated[float | None, Field(ge=1.0, le=100.0)] = None
    response_format: Literal["json", "mp3", "opus", "aac", "flac", "wav", "pcm"] | None = None


def _form() -> dict[str, Any]:
    """The body of the route for the OpenAPI document: any row's inputs, and the options."""
    values: dict[str, Any] = {}
    for row in TASKS.values():
        for part in row.inputs:
            text = {"type": "string"} if part.kind == "text" else {"type": "string", "format": "binary"}
            values.setdefault(part.value, text)
    options = Options.model_json_schema()["properties"]
    schema = {"type": "object", "properties": {**values, **options}}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


@router.get("")
async def list_tasks(server: The) -> dict[str, Any]:
    """The rows of the task table: what each takes and makes, and whether the model was trained for it."""
    trained = server.model.facts.trained_tasks
    data = [
        {
            "id": row.name,
            "object": "task",
            "inputs": [{"name": part.value, "kind": part.kind, "optional": part.optional} for part in row.inputs],
            "outputs": [{"name": part.value, "kind": part.kind} for part in row.outputs],
            "trained": None if trained is None else row.name in trained,
        }
        for row in TASKS.values()
    ]
    return {"object": "list", "data": data}


@router.post("/{name}", response_class=Response, openapi_extra=_form(), responses={
    200: {"content": {"application/json": {}, "audio/wav": {}}}
})  # fmt: skip
async def run_task(
    name: Annotated[str, Path(json_schema_extra={"enum": list(TASKS)})], request: Request, server: The
) -> Response:
    """Run a row: its inputs are fields of the form, texts as such, recordings as files.

    Two outputs, text or codes come as JSON, one recording as audio; ``response_format`` "json" makes it JSON with the
    audio in base64.
    """
    if name.lower().replace("-", "_") not in TASKS:
        raise APIError(404, f"there is no task {name[:80]!r}: GET /v1/tasks lists them", code="task_not_found")
    row = get_task(name)
    form = await request.form(max_files=16, max_fields=64)
    options = _options(row, form)
    given = {key: await _read(value) for key, value in form.multi_items() if key in _kinds(row)}

    def work() -> dict[str, Output]:
        values = {key: _value(server, row, key, value) for key, value in given.items()}
        arguments = options.model_dump(exclude={"response_format"})
        return server.model.run(row, values, **arguments)

    outputs = await server.jobs.run(request, work)
    single = next(iter(outputs.values())) if len(outputs) == 1 else None
    form_wanted = options.response_format or "wav"
    if isinstance(single, AudioResult) and form_wanted != "json":
        return Response(encode_all(single.audio, form_wanted), media_type=MEDIA_TYPES[form_wanted])
    return JSONResponse({"task": row.name, "outputs": {key: _plain(server, value) for key, value in outputs.items()}})


def _kinds(row: Task) -> dict[str, str]:
    kinds: dict[str, str] = {}
    for part in row.inputs:
        kinds.setdefault(part.value, part.kind)
    return kinds


def _options(row: Task, form: FormData) -> Options:
    """The fields that are not inputs, checked; and whether all inputs that are needed are there."""
    kinds = _kinds(row)
    for name in required(row.inputs):
        if name not in form:
            raise APIError(400, f"{name}: task {row.name!r} needs it", param=name, code="missing_required_parameter")
    try:
        return Options.model_validate({key: value for key, value in form.items() if key not in kinds})
    except ValidationError as error:
        first = error.errors()[0]
        param = ".".join(map(str, first["loc"])) or None
        what = f"task {row.name!r} has no such input or option" if first["type"] == "extra_forbidden" else first["msg"]
        raise APIError(400, f"{param}: {what}", param=param, code="invalid_value") from None


async def _read(value: UploadFile | str) -> bytes | str:
    return value if isinstance(value, str) else await value.read()


def _value(server: Server, row: Task, name: str, value: bytes | str) -> Any:
    """One input: a text, or a recording, which comes as a file, never as a path."""
    kind = _kinds(row)[name]
    if kind == "text":
        if isinstance(value, str):
            return value
        raise APIError(400, f"{name}: must be text, not a file", param=name, code="invalid_value")
    if isinstance(value, bytes):
        recording = read_recording(value, server.settings.max_audio_s, name=name)
        server.metrics.audio_in.inc(recording.duration_s)
        return recording
    if kind == "voice" and (path := server.voices.path(server.model, value)) is not None:
        return open_audio(path)
    raise APIError(400, f"{name}: must be a recording, sent as a file", param=name, code="invalid_value")


def _plain(server: Server, value: Output) -> dict[str, Any]:
    """One output for JSON."""
    if isinstance(value, str):
        return {"type": "text", "text": value}
    if isinstance(value, AudioCodes):
        return {"type": "codes", **described_codes(server, value)}
    audio = base64.b64encode(encode_all(value.audio, "wav")).decode()
    return {"type": "audio", "format": "wav", "duration_s": round(value.duration_s, 3), "audio": audio}
