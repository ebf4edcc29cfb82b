"""The server: ``serve``."""

import os
from pathlib import Path
from typing import Any

import click

from uniaudio2.batch import InputError
from uniaudio2.cli.options import Number, Options, count, takes
from uniaudio2.errors import MissingPackageError


def _limit(*flags: str, default: float, type: Number, metavar: str, help: str) -> Any:
    return click.option(*flags, default=default, type=type, metavar=metavar, help=help, show_default=True)


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at; 0.0.0.0 is everywhere.")
@click.option("--port", type=count(0, 65535), default=8000, show_default=True, metavar="N", help="Port to listen at.")
@click.option("--api-key-env", metavar="NAME", help="Ask clients for the key in this environment variable.")
@click.option(
    "--cors-origin", "cors_origins", multiple=True, metavar="URL",
    help="Let pages of this address ask; may be repeated.",
)  # fmt: skip
@click.option(
    "--allow-host", "allow_hosts", multiple=True, metavar="NAME",
    help="Answer to this name, such as a proxy's; may be repeated.  [default: any; on 127.0.0.1 without a key only "
    "this machine's]",
)  # fmt: skip
@click.option("--voices", type=Path, metavar="DIR", help="Keep voices that clients send here.  [default: no voices]")
@_limit("--best-of", default=1, type=count(1, 64), metavar="N", help="Attempts per sentence; 1 is heard soonest.")
@_limit("--first-words", default=0, type=count(0, 1000), metavar="N",
        help="Begin with a part of so many words; 0: a sentence.")  # fmt: skip
@_limit("--running", default=16, type=count(1, 1024), metavar="N", help="Requests that are worked on at once.")
@_limit(
    "--waiting", default=64, type=count(0, 65536), metavar="N", help="More that may wait; further ones get status 429."
)
@_limit("--sessions", default=32, type=count(1, 65536), metavar="N", help="Realtime sessions at once.")
@_limit("--max-body", "max_body_mb", default=25, type=Number(0, above=True), metavar="MB", help="Largest request.")
@_limit("--max-audio", "max_audio_s", default=1800, type=Number(0, above=True), metavar="S", help="Longest recording.")
@_limit("--max-characters", default=4096, type=count(1, 100_000), metavar="N", help="Longest text to speak.")
@_limit(
    "--deadline", "deadline_s", default=600, type=Number(0, above=True), metavar="S", help="Most time for a request."
)
@_limit(
    "--idle", "idle_s", default=20, type=Number(0, above=True), metavar="S",
    help="Cut off a client that neither sends nor reads for so long.",
)  # fmt: skip
@_limit("--threads", default=1, type=count(1, 1024), metavar="N", help="CPU threads of each request.")
@takes("model", "device", "dtype", "compile")
def serve(host: str, port: int, api_key_env: str | None, *, options: Options, **settings: Any) -> None:
    """Serve the model to programs that speak OpenAI's audio interface.

    Open http://127.0.0.1:8000 in a browser to try it; give programs http://127.0.0.1:8000/v1 as their base address.
    Routes: speech, transcriptions, voices, realtime sessions, every task, codes; /openapi.json describes them. Ctrl-C
    ends it. Needs the extra `serve`.
    """
    key = None
    if api_key_env is not None:
        key = os.environ.get(api_key_env, "")
        if not key:
            raise InputError(f"--api-key-env {api_key_env}: this environment variable is not set, or is empty")
    _ = options.facts  # a folder that is no model is known at once
    os.environ.setdefault("OMP_NUM_THREADS", str(settings["threads"]))
    try:
        from uniaudio2.server.run import serve as run
        from uniaudio2.server.settings import ServerSettings
    except ModuleNotFoundError as error:
        raise MissingPackageError(f"serve needs {error.name}: pip install 'uniaudio2[serve]'") from error

    run(options.load, ServerSettings.listening_at(host, api_key=key, **settings), host, port)
