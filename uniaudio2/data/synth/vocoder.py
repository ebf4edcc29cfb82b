"""WORLD: a voice as pitch, envelope and aperiodicity, and back. Source: Morise and others (2016), through pyworld."""

from __future__ import annotations

import functools
import importlib.machinery
import importlib.util
from pathlib import Path
from types import ModuleType

from uniaudio2.data.synth.voices import SynthesiserMissing

FRAME_S = 0.005
"""Time between two frames of an analysis, seconds."""


@functools.cache
def world() -> ModuleType:
    """The functions of pyworld.

    Raises:
        SynthesiserMissing: If it is not installed.
    """
    found = importlib.util.find_spec("pyworld")
    # Choice: the compiled part alone; the package around it needs pkg_resources, which setuptools no longer has.
    for folder in (found.submodule_search_locations or ()) if found else ():
        for suffix in importlib.machinery.EXTENSION_SUFFIXES:
            file = Path(folder) / f"pyworld{suffix}"
            if file.is_file():
                spec = importlib.util.spec_from_file_location("pyworld.pyworld", file)
                assert spec is not None and spec.loader is not None
                module = importlib.util.module_from_spec(spec)
                spec.loader.exec_module(module)
                return module
    raise SynthesiserMissing("WORLD is missing: `pip install pyworld`")
