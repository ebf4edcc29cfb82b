"""Whether the server lives, can serve, and how it does."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from uniaudio2 import __version__
from uniaudio2.server.state import The

router = APIRouter(tags=["health"])


@router.get("/health")
async def health() -> dict[str, Any]:
    """Whether the process answers; says nothing of the model."""
    return {"status": "ok", "version": __version__}


@router.get("/ready")
async def ready(server: The) -> dict[str, Any]:
    """Whether the model is loaded and requests are served; 503 until then."""
    return {"status": "ready", "model": server.model.name}


@router.get("/metrics", response_class=Response)
async def metrics(server: The) -> Response:
    """Figures in Prometheus' format."""
    return Response(server.metrics.page(), media_type=CONTENT_TYPE_LATEST)
