"""Several copies of the server behind the same routes, by Ray Serve.

serve run uniaudio2.server.ray_app:build replicas=2 model=nano
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI

from uniaudio2.errors import MissingPackageError
from uniaudio2.server.app import create_app
from uniaudio2.server.settings import ServerSettings

if TYPE_CHECKING:
    from ray.serve import Application


def build(arguments: dict[str, Any]) -> Application:
    """The application for ``serve run``.

    Args:
        arguments: ``replicas`` (2), ``model`` (folder or name; the shipped one), ``device`` ("auto"), ``cpus`` (1) and
            ``gpus`` (0) of each copy, ``voices`` (a folder that all of them see).

    Raises:
        MissingPackageError: If Ray is not installed.
    """
    try:
        from ray import serve
    except ModuleNotFoundError as error:
        raise MissingPackageError("several copies need Ray: pip install 'uniaudio2[ray]'") from error

    source, device, voices = arguments.get("model"), arguments.get("device", "auto"), arguments.get("voices")
    settings = ServerSettings(voices=Path(voices) if voices else None)

    def application() -> FastAPI:
        """One copy's routes; made where the copy runs."""
        from uniaudio2.api.model import UniAudio2
        from uniaudio2.storage.folder import SHIPPED

        folder = SHIPPED / source if source is not None and (SHIPPED / source).is_dir() else source
        return create_app(lambda: UniAudio2.from_pretrained(folder, device=device), settings)

    @serve.deployment(
        num_replicas=int(arguments.get("replicas", 2)),
        ray_actor_options={"num_cpus": float(arguments.get("cpus", 1)), "num_gpus": float(arguments.get("gpus", 0))},
        max_ongoing_requests=settings.running + settings.waiting,
        graceful_shutdown_timeout_s=60,
    )
    @serve.ingress(application)
    class Copy:
        """One copy of the server."""

    return Copy.bind()  # pyright: ignore[reportAttributeAccessIssue] (made by the decorators)
