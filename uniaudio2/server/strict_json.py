"""JSON as the standard has it: Python's own module reads and writes NaN and Infinity, which other readers refuse."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic_core import from_json

from uniaudio2.errors import UserError


def read_json(text: str | bytes) -> object:
    """The value of a JSON text, which can be written again.

    Raises:
        ValueError: If it is none; so are NaN, numbers beyond a float's range, half characters and deep nesting.
    """
    value = from_json(text, allow_inf_nan=False)  # yet 1e999 is read, as infinity
    if _finite(value) != value:
        raise UserError("a number is out of range")
    return value


def write_json(value: Any) -> str:
    """A value as JSON on one line; a number that is not finite becomes null."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value), ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    """The same with None in the place of numbers that are not finite."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class JSONAnswer(JSONResponse):
    """An answer that every reader of JSON understands."""

    def render(self, content: Any) -> bytes:
        """Its body."""
        return write_json(content).encode()


class JSONRoute(APIRoute):
    """A route whose JSON body is read strictly."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """As documented by FastAPI for requests of one's own."""
        handler = super().get_route_handler()

        async def strictly(request: Request) -> Response:
            return await handler(_Request(request.scope, request.receive))

        return strictly


class _Request(Request):
    async def json(self) -> Any:
        try:
            return read_json(await self.body())
        except ValueError as error:
            raise json.JSONDecodeError(str(error), "", 0) from None
