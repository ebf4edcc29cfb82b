"""``POST /v1/tasks/{name}``: every row of the task table."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from starlette.datastructures import FormData, UploadFile

from uniaudio2.api.results import AudioResult
from uniaudio2.api.run import Output, by_name, check_names
from uniaudio2.audio import Recording, open_audio
from uniaudio2.codes import AudioCodes
from uniaudio2.errors import UserError
from uniaudio2.server.audio_in import read_recording
from uniaudio2.server.audio_out import MEDIA_TYPES, encode_all
from uniaudio2.server.codec import described_codes
from uniaudio2.server.errors import APIError
from uniaudio2.server.state import Server, The
from uniaudio2.server.strict_json import JSONAnswer, read_json
from uniaudio2.tasks import TASKS, Part, Task, get_task, required

router = APIRouter(prefix="/v1/tasks", tags=["tasks"])
MOST_FILES, MOST_FIELDS, MOST_SHOTS = 64, 64, 32


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


class Shot(BaseModel):
    """An example: each side an object of names to values, or the value alone where the row needs only one.

    A text stands for itself, a recording is the name of the part of the form that holds it.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    input: str | dict[str, str] | None = None
    output: str | dict[str, str]


_SHOTS: TypeAdapter[list[Shot]] = TypeAdapter(Annotated[list[Shot], Field(max_length=MOST_SHOTS)])
_EXAMPLE = {
    "shots": '[{"input": "rain", "output": "weather"}, {"input": "dog", "output": "an animal"}]',
    "rain": "(file)",
    "dog": "(file)",
    "audio": "(file)",
}


def _form() -> dict[str, Any]:
    """The body of the route for the OpenAPI document: any row's inputs, the options, and examples."""
    values: dict[str, Any] = {}
    file = {"type": "string", "format": "binary"}
    for row in TASKS.values():
        for part in row.inputs:
            values.setdefault(part.value, {"type": "string"} if part.kind == "text" else file)
    shots = {
        "type": "string",
        "contentMediaType": "application/json",
        "contentSchema": {"type": "array", "maxItems": MOST_SHOTS, "items": Shot.model_json_schema()},
        "description": "Examples that come first, in order: a JSON list of objects with input and output. A text "
        "stands for itself; a recording is the name of another part of this form, a file.",
    }
    options = Options.model_json_schema()["properties"]
    properties = {**values, **options, "shots": shots}
    schema = {"type": "object", "properties": properties, "additionalProperties": file}
    examples = {"few-shot": {"summary": "audio_caption after two examples", "value": _EXAMPLE}}
    content = {"multipart/form-data": {"schema": schema, "examples": examples}}
    return {"requestBody": {"required": True, "content": content}}


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
    form = await request.form(max_files=MOST_FILES, max_fields=MOST_FIELDS)
    shots = _shots(form)
    options = _options(row, form, shots)
    parts = {key: await _read(value) for key, value in form.items()}

    def work() -> dict[str, Output]:
        values = _Values(server, row, parts)
        arguments = options.model_dump(exclude={"response_format"})
        return server.model.run(row, values.inputs(), shots=[*map(values.shot, range(len(shots)), shots)], **arguments)

    outputs = await server.jobs.run(request, work)
    server.metrics.audio_out.inc(sum(one.duration_s for one in outputs.values() if isinstance(one, AudioResult)))
    single = next(iter(outputs.values())) if len(outputs) == 1 else None
    form_wanted = options.response_format or "wav"
    if isinstance(single, AudioResult) and form_wanted != "json":
        return Response(encode_all(single.audio, form_wanted), media_type=MEDIA_TYPES[form_wanted])
    return JSONAnswer({"task": row.name, "outputs": {key: _plain(server, value) for key, value in outputs.items()}})


def _kinds(row: Task) -> dict[str, str]:
    kinds: dict[str, str] = {}
    for part in row.inputs:
        kinds.setdefault(part.value, part.kind)
    return kinds


def _shots(form: FormData) -> list[Shot]:
    """The examples of a form."""
    given = form.get("shots", "[]")
    try:
        return _SHOTS.validate_python(read_json(given if isinstance(given, str) else ""))
    except ValidationError as error:
        first = error.errors()[0]
        where, what = ".".join(map(str, ("shots", *first["loc"]))), first["msg"]
    except ValueError as error:
        where, what = "shots", f"must be a JSON list of examples ({error})"
    raise APIError(400, f"{where}: {what}", param=where, code="invalid_value")


def _options(row: Task, form: FormData, shots: Sequence[Shot]) -> Options:
    """The fields that are not inputs, checked; and whether all inputs that are needed are there."""
    kinds = _kinds(row)
    for name in required(row.inputs):
        if name not in form:
            raise APIError(400, f"{name}: task {row.name!r} needs it", param=name, code="missing_required_parameter")
    sides = [side if isinstance(side, dict) else {"": side} for one in shots for side in (one.input, one.output)]
    named = {text for side in sides for text in side.values() if isinstance(form.get(text or ""), UploadFile)}
    try:
        return Options.model_validate({key: form[key] for key in form if key not in {*kinds, *named, "shots"}})
    except ValidationError as error:
        first = error.errors()[0]
        param = ".".join(map(str, first["loc"])) or None
        what = f"task {row.name!r} has no such input or option" if first["type"] == "extra_forbidden" else first["msg"]
        raise APIError(400, f"{param}: {what}", param=param, code="invalid_value") from None


async def _read(value: UploadFile | str) -> bytes | str:
    return value if isinstance(value, str) else await value.read()


class _Values:
    """The parts of a form as values of a row: texts as such, recordings from files, never from paths.

    Args:
        server: Whose limits count; all recordings of a form together may be as long as one.
        row: Of the task table.
        parts: Bytes of files, and texts.
    """

    def __init__(self, server: Server, row: Task, parts: dict[str, bytes | str]) -> None:
        self._server, self._row, self._parts = server, row, parts
        self._recordings: dict[str, Recording] = {}

    def inputs(self) -> dict[str, Any]:
        """Those of the row itself."""
        given = {name: kind for name, kind in _kinds(self._row).items() if name in self._parts}
        return {name: self._value(kind, name, self._parts[name], name) for name, kind in given.items()}

    def shot(self, number: int, shot: Shot) -> tuple[dict[str, Any], dict[str, Any]]:
        """Both sides of an example."""
        inputs = self._side(self._row.inputs, shot.input, f"shots.{number}.input")
        return inputs, self._side(self._row.outputs, shot.output, f"shots.{number}.output")

    def _side(self, parts: Sequence[Part], side: str | dict[str, str] | None, where: str) -> dict[str, Any]:
        try:
            given = {} if side is None else by_name(self._row, parts, side)
            kinds = check_names(self._row, parts, given)
        except UserError as error:
            raise APIError(400, f"{where}: {error}", param=where, code="invalid_value") from None
        made: dict[str, Any] = {}
        for name, text in given.items():
            file = self._parts.get(text) if kinds[name] != "text" else None
            made[name] = self._value(kinds[name], f"{where}.{name}", file if isinstance(file, bytes) else text, text)
        return made

    def _value(self, kind: str, where: str, value: bytes | str, part: str) -> Any:
        """One value: a text, the bytes of the file that the form calls ``part``, or the name of a voice."""
        server = self._server
        if kind == "text" and isinstance(value, str):
            return server.check_length(where, value)
        if kind == "text":
            raise APIError(400, f"{where}: must be text, not a file", param=where, code="invalid_value")
        if isinstance(value, bytes):
            return self._recordings.get(part) or self._recording(part, value)
        if kind == "voice" and (path := server.voices.path(server.model, value)) is not None:
            return open_audio(path)
        message = f"{where}: must be a recording, sent as a file"
        message += "" if where == part else f"; the form has no file {value[:80]!r}"
        raise APIError(400, message, param=where, code="invalid_value")

    def _recording(self, part: str, data: bytes) -> Recording:
        left_s = self._server.settings.max_audio_s - sum(one.duration_s for one in self._recordings.values())
        recording = self._recordings[part] = read_recording(data, left_s, name=part)
        self._server.metrics.audio_in.inc(recording.duration_s)
        return recording


def _plain(server: Server, value: Output) -> dict[str, Any]:
    """One output for JSON."""
    if isinstance(value, str):
        return {"type": "text", "text": value}
    if isinstance(value, AudioCodes):
        return {"type": "codes", **described_codes(server, value)}
    audio = base64.b64encode(encode_all(value.audio, "wav")).decode()
    return {"type": "audio", "format": "wav", "duration_s": round(value.duration_s, 3), "audio": audio}
