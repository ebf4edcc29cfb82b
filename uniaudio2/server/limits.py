"""What stands around every request: its id, the key, the size and pace of its body, the log and the figures."""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import time
import uuid
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from uniaudio2.server.errors import GONE, APIError
from uniaudio2.server.state import Server

logger = logging.getLogger("uniaudio2.server")

_OPEN = ("/health", "/ready")  # answered without a key, as are the pages, which hold nothing secret
_KEPT = ("/v1/", "/metrics")  # what the key protects
MOST_HEADERS = 32 * 1024
_ID = re.compile(r"[\w.-]{1,64}")


class Guard:
    """Middleware around the whole application.

    Args:
        app: What is guarded.
        server: Settings and figures.
    """

    def __init__(self, app: ASGIApp, server: Server) -> None:
        self._app, self._server = app, server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        await _Exchange(self._app, self._server, scope, receive, send).serve()


class _Exchange:
    """One request and its answer."""

    def __init__(self, app: ASGIApp, server: Server, scope: Scope, receive: Receive, send: Send) -> None:
        self._app, self._server, self._scope = app, server, scope
        self._receive_raw, self._send_raw = receive, send
        self._headers = Headers(scope=scope)
        given = self._headers.get("x-request-id", "")
        self._id = given if _ID.fullmatch(given) else uuid.uuid4().hex
        self._began, self._first_s = time.perf_counter(), None
        self._status, self._received, self._whole = 0, 0, False
        self._refusal: APIError | None = None  # takes the place of whatever the application answers

    async def serve(self) -> None:
        """All of it."""
        outcome = "done"
        try:
            self._check()
            await self._app(self._scope, self._receive, self._send)
        except APIError as error:
            if self._status:
                raise
            await error.response()(self._scope, self._receive_raw, self._send)
        except asyncio.CancelledError:
            outcome = GONE
            raise
        except BaseException as error:
            outcome = type(error).__name__
            raise
        finally:
            self._record(outcome)

    def _check(self) -> None:
        """Refuse whom the key is missing, and bodies that say that they are too large."""
        check_host(self._server.settings.hosts, self._headers)
        check_key(self._server.settings.api_key, self._scope["path"], self._headers.get("authorization", ""))
        if self._scope["method"] not in ("GET", "HEAD", "OPTIONS"):
            check_origin(self._server.settings.cors_origins, self._headers)
        if sum(len(name) + len(value) for name, value in self._scope["headers"]) > MOST_HEADERS:
            raise APIError(431, f"the headers have more than {MOST_HEADERS} bytes: send less", code="headers_too_large")
        length = self._headers.get("content-length", "0")
        if length.isdigit() and int(length) > self._server.settings.max_body:
            raise self._too_large()

    def _too_large(self) -> APIError:
        message = f"the request has more than the {self._server.settings.max_body_mb:g} MB that this server takes"
        return APIError(413, f"{message}: send it in parts, or compressed (mp3, opus)", code="body_too_large")

    async def _receive(self) -> Message:
        """What the client sends; cut off where it is too much or comes too slowly."""
        if self._whole:  # only its going away can follow, and for that there is no hurry
            return await self._receive_raw()
        settings = self._server.settings
        left_s = self._began + settings.deadline_s - time.perf_counter()
        try:
            message = await asyncio.wait_for(self._receive_raw(), min(settings.idle_s, left_s))
        except TimeoutError:
            message = "the request's body came too slowly: send it without pauses, or compressed (mp3, opus)"
            self._refusal = APIError(408, message, code="body_too_slow", headers={"Connection": "close"})
            raise self._refusal from None
        if message["type"] == "http.request":
            self._received += len(message.get("body", b""))
            self._whole = not message.get("more_body", False)
            if self._received > self._server.settings.max_body:
                self._refusal = self._too_large()
                raise self._refusal
        return message

    async def _send(self, message: Message) -> None:
        """What the client gets."""
        if self._refusal is not None:
            if not self._status:
                refusal, self._refusal = self._refusal.response(), None
                await refusal(self._scope, self._receive_raw, self._send)
                self._refusal = APIError(0, "answered already")
            return
        if message["type"] == "http.response.start":
            self._status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["x-request-id"] = self._id
            headers["x-content-type-options"] = "nosniff"
            headers["x-frame-options"] = "DENY"  # no other page shows ours and has people click in it
        elif self._first_s is None and message.get("body"):
            self._first_s = time.perf_counter() - self._began
        await self._send_raw(message)

    def _record(self, outcome: str) -> None:
        """One line in the log, and the figures."""
        route = getattr(self._scope.get("route"), "path", "other")
        seconds = time.perf_counter() - self._began
        metrics = self._server.metrics
        metrics.requests.labels(route, str(self._status)).inc()
        metrics.seconds.labels(route).observe(seconds)
        if self._first_s is not None:
            metrics.first_byte.labels(route).observe(self._first_s)
        fields: dict[str, Any] = {
            "request_id": self._id,
            "method": self._scope["method"],
            "route": route,
            "status": self._status,
            "bytes_in": self._received,
            "seconds": round(seconds, 4),
            "first_byte_s": None if self._first_s is None else round(self._first_s, 4),
            "outcome": self._scope.get("outcome", outcome),
        }
        logger.info("request", extra={"fields": fields})


def check_key(key: str | None, path: str, authorization: str) -> None:
    """Refuse a request for what the key protects that does not bring it; compared in constant time.

    Raises:
        APIError: If it is missing or wrong.
    """
    if key is None or path in _OPEN or not path.startswith(_KEPT):
        return
    scheme, _, given = authorization.partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode("latin-1"), key.encode()):
        message = "this server asks for a key: send the header 'Authorization: Bearer KEY'"
        raise APIError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})


def check_host(allowed: Sequence[str], headers: Headers) -> None:
    """Refuse a request that asks for another host: to a page whose name leads here, browsers take us for its server.

    Raises:
        APIError: If there are allowed names, and the host is none of them.
    """
    try:
        name = urlsplit(f"//{headers.get('host', '')}").hostname or ""
    except ValueError:
        name = ""
    if allowed and name not in allowed:
        message = f"this server is not {name[:80]}: start it with --allow-host {name[:80]}, or with a key"
        raise APIError(403, message, code="host_not_allowed")


def check_origin(allowed: Sequence[str], headers: Headers) -> None:
    """Refuse what a page of another address asks for: browsers stop neither its WebSockets nor its plain forms.

    Choice: what browsers say in Sec-Fetch-Site comes first, since a proxy may give requests another Host.

    Raises:
        APIError: If it comes from such a page, and its origin is not allowed.
    """
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    if origin is None or origin in allowed or "*" in allowed:
        return
    own = origin.partition("://")[2] == headers.get("host") if site is None else site in ("same-origin", "none")
    if not own:
        message = f"pages of {origin[:80]} may not ask this server: start it with --cors-origin {origin[:80]}"
        raise APIError(403, message, code="origin_not_allowed")
