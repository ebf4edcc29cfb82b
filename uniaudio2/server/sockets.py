"""Sessions: connections that stay open, which are WebSockets."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import WebSocket

from uniaudio2.server.errors import APIError
from uniaudio2.server.limits import check_host, check_key, check_origin
from uniaudio2.server.state import Server, server_of

_PROTOCOL = "realtime"
_KEY_PROTOCOL = "openai-insecure-api-key."  # how browsers, which cannot set headers, send the key


async def serve_session(socket: WebSocket, begin: Callable[[Server], Callable[[], Awaitable[None]]]) -> None:
    """Serve one session, if there is room for it, and the key and the page that asks are right.

    Args:
        socket: As it comes.
        begin: Checks what the session is asked for, and gives what serves it once the socket is accepted; its
            `APIError` refuses the socket.
    """
    server = server_of(socket)
    metrics, route = server.metrics, getattr(socket.scope.get("route"), "path", "other")
    protocols = [word.strip() for word in socket.headers.get("sec-websocket-protocol", "").split(",")]
    key = next((word.removeprefix(_KEY_PROTOCOL) for word in protocols if word.startswith(_KEY_PROTOCOL)), None)
    authorization = socket.headers.get("authorization") or ("" if key is None else f"Bearer {key}")
    try:
        check_host(server.settings.hosts, socket.headers)
        check_key(server.settings.api_key, socket.url.path, authorization)
        check_origin(server.settings.cors_origins, socket.headers)
        run = begin(server)
        if server.sessions >= server.settings.sessions:
            raise APIError(429, "as many sessions run as this server takes: come back later", code="too_many_sessions")
    except APIError as error:
        metrics.requests.labels(route, str(error.status)).inc()
        await socket.send_denial_response(error.response())
        return
    server.sessions += 1
    metrics.requests.labels(route, "101").inc()
    try:
        with metrics.sessions.labels(route).track_inprogress(), metrics.session_seconds.labels(route).time():
            await socket.accept(_PROTOCOL if _PROTOCOL in protocols else None)
            await run()
    finally:
        server.sessions -= 1
