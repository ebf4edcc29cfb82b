"""The command line: one file per group of commands, each of which parses, checks, calls one function and prints."""

from uniaudio2.cli.app import app, execute, main

__all__ = ["app", "execute", "main"]
