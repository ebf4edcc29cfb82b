"""What can be asked for: the model."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from uniaudio2.server.errors import APIError
from uniaudio2.server.state import Server, The

router = APIRouter(prefix="/v1", tags=["models"])


def _card(server: Server) -> dict[str, Any]:
    model = server.model
    trained = model.facts.trained_tasks
    card = {"id": model.name, "object": "model", "created": server.started, "owned_by": "uniaudio2"}
    return card | ({} if trained is None else {"tasks": list(trained)})


@router.get("/models")
async def list_models(server: The) -> dict[str, Any]:
    """The model that is served, with the tasks it was trained for. Requests may name it, or any other: it answers."""
    return {"object": "list", "data": [_card(server)]}


@router.get("/models/{model}")
async def get_model(model: str, server: The) -> dict[str, Any]:
    """One model."""
    card = _card(server)
    if model != card["id"]:
        message = f"there is no model {model!r}: this server has {card['id']!r}"
        raise APIError(404, message, param="model", code="model_not_found")
    return card
