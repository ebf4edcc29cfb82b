"""Errors as OpenAI's clients expect them: ``{"error": {"message", "type", "param", "code"}}``, message with remedy."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from uniaudio2.engine import Cancelled, GenerationError
from uniaudio2.errors import MissingPackageError, UserError, describe, is_disk_full, is_expected
from uniaudio2.server.strict_json import JSONAnswer

logger = logging.getLogger(__name__)

_TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
DEADLINE, GONE = "deadline", "client gone"
"""Why a request may be cancelled."""


class APIError(Exception):
    """An answer other than what was asked for.

    Args:
        status: HTTP status.
        message: One line with the remedy.
        code: For programs.
        param: The field at fault.
        headers: To send along.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param, self.headers = status, message, code, param, headers

    @property
    def body(self) -> dict[str, Any]:
        """The inner object of the answer."""
        kind = _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"message": self.message, "type": kind, "param": self.param, "code": self.code}

    def response(self) -> JSONAnswer:
        """The answer."""
        return JSONAnswer({"error": self.body}, self.status, headers=dict(self.headers or {}))


def as_api_error(error: BaseException) -> APIError:
    """Any error as an answer; a bug of ours is logged, and tells nothing of its inside."""
    if isinstance(error, APIError):
        return error
    if isinstance(error, Cancelled):
        if str(error) == DEADLINE:
            message = "this took longer than the server allows for one request: send less, or raise --deadline"
            return APIError(504, message, code="deadline_exceeded")
        return APIError(499, f"{error}: stopped", code="cancelled")
    if isinstance(error, MissingPackageError):
        return APIError(501, describe(error), code="missing_package")
    if isinstance(error, GenerationError) and error.__cause__ is not None:  # a step failed, with all that was in it
        return APIError(503, "the batch that this request was in failed: send it again", code="batch_failed")
    if isinstance(error, UserError):
        return APIError(400, describe(error), code="invalid_value")
    if is_disk_full(error):
        return APIError(507, "no space is left on the server's disk: free some, and send it again", code="disk_full")
    if isinstance(error, OSError):
        logger.error("storage", exc_info=error)
        return APIError(503, "the server cannot read or write its files: see its log", code="storage")
    if isinstance(error, MemoryError) or (is_expected(error) and "out of memory" in str(error)):
        return APIError(503, "not enough memory for this request: send less, or come back later", code="out_of_memory")
    logger.error("bug", exc_info=error)
    return APIError(500, f"a bug of the server ({type(error).__name__}): see its log, and report it", code="bug")


def add_handlers(app: FastAPI) -> None:
    """Give all errors of an application that shape."""

    async def known(request: Request, error: Exception) -> JSONAnswer:
        return as_api_error(error).response()

    async def of_routing(request: Request, error: Exception) -> JSONAnswer:
        assert isinstance(error, HTTPException)
        remedies = {
            404: f"there is no {request.url.path}: see /openapi.json",
            405: "this path takes another method: see /openapi.json",
        }
        message = remedies.get(error.status_code, str(error.detail))
        return APIError(error.status_code, message, headers=error.headers).response()

    async def of_values(request: Request, error: Exception) -> JSONAnswer:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            return APIError(400, f"the body must be JSON: {first['ctx']['error']}", code="invalid_json").response()
        places = [str(part) for part in first["loc"] if part not in ("body", "query", "path")]
        param = ".".join(places) or None
        message = f"{param or 'the request'}: {first['msg']}"
        return APIError(400, message, param=param, code="invalid_value").response()

    for kind in (APIError, Cancelled, UserError, OSError, MemoryError):
        app.add_exception_handler(kind, known)
    app.add_exception_handler(HTTPException, of_routing)
    app.add_exception_handler(RequestValidationError, of_values)
    app.add_exception_handler(Exception, known)
