"""The server: ``serve``."""

import os
from pathlib import Path

import click

from uniaudio2.batch import InputError
from uniaudio2.cli.options import Number, Options, count, takes
from uniaudio2.errors import MissingPackageError


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at; 0.0.0.0 is everywhere.")
@click.option("--port", type=count(0, 65535), default=8000, show_default=True, metavar="N", help="Port to listen at.")
@click.option("--api-key-env", metavar="NAME", help="Ask clients for the key in this environment variable.")
@click.option(
    "--cors-origin", "cors", multiple=True, metavar="URL", help="Let pages of this address ask; may be repeated."
)
@click.option("--voices", type=Path, metavar="DIR", help="Keep voices that clients send here.  [default: none are]")
@click.option("--best-of", type=count(1, 64), default=1, show_default=True, metavar="N", help="Attempts per sentence.")
@click.option("--running", type=count(1, 1024), default=16, show_default=True, metavar="N", help="Requests at once.")
@click.option("--waiting", type=count(0, 65536), default=64, show_default=True, metavar="N", help="More that may wait.")
@click.option(
    "--max-body", type=Number(0, above=True), default=25, show_default=True, metavar="MB", help="Of a request."
)
@click.option(
    "--max-audio", type=Number(0, above=True), default=1800, show_default=True, metavar="S", help="Of a recording."
)
@click.option(
    "--deadline", type=Number(0, above=True), default=600, show_default=True, metavar="S", help="For one request."
)
@click.option(
    "--idle", type=Number(0, above=True), default=20, show_default=True, metavar="S",
    help="Cut off a client that neither sends nor reads for so long.",
)  # fmt: skip
@click.option(
    "--threads", type=count(1, 1024), default=1, show_default=True, metavar="N", help="Per request, on a CPU."
)
@takes("model", "device", "dtype", "compile")
def serve(
    host: str,
    port: int,
    api_key_env: str | None,
    cors: tuple[str, ...],
    voices: Path | None,
    best_of: int,
    running: int,
    waiting: int,
    max_body: float,
    max_audio: float,
    deadline: float,
    idle: float,
    threads: int,
    *,
    options: Options,
) -> None:
    """Serve the model to programs that speak OpenAI's audio interface.

    Speech, transcription, voices, realtime sessions, every task, codes; see the page Server of the documentation.
    """
    key = None
    if api_key_env is not None:
        key = os.environ.get(api_key_env, "")
        if not key:
            raise InputError(f"--api-key-env {api_key_env}: this environment variable is not set, or is empty")
    _ = options.facts  # a folder that is no model is known at once
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    try:
        from uniaudio2.server.run import serve as run
        from uniaudio2.server.settings import ServerSettings
    except ModuleNotFoundError as error:
        raise MissingPackageError(f"serve needs {error.name}: pip install 'uniaudio2[serve]'") from error

    settings = ServerSettings(
        api_key=key,
        cors_origins=cors,
        voices=voices,
        max_body_mb=max_body,
        max_audio_s=max_audio,
        running=running,
        waiting=waiting,
        deadline_s=deadline,
        idle_s=idle,
        best_of=best_of,
        threads=threads,
    )
    run(options.load, settings, host, port)
