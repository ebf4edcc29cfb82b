"""Systems by name: one file of `uniaudio2.systems.adapters` each, or a file of one's own."""

from __future__ import annotations

import importlib.util
import pkgutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uniaudio2.codec.registry import Registry
from uniaudio2.config import ConfigError, load_config
from uniaudio2.config.read import parse_yaml
from uniaudio2.systems import adapters
from uniaudio2.systems.contract import System

SYSTEMS: Registry[System] = Registry(
    "system", {file.name: f"{adapters.__name__}.{file.name}" for file in pkgutil.iter_modules(adapters.__path__)}
)
"""Classes below `CodecSystem`, `SpeechSystem` or `StoredSystem`, each with a config dataclass."""


@dataclass(frozen=True)
class Spec:
    """A system as it is asked for.

    Attributes:
        label: Its name in the report, unlike any other's.
        name: As registered.
        settings: ``key=value`` words of its config.
    """

    label: str
    name: str
    settings: tuple[str, ...] = ()


def parse_systems(words: str) -> list[Spec]:
    """The systems that ``--systems`` names.

    Args:
        words: Names with commas between, such as ``encodec@kbps=3,encodec@kbps=6,mimi``; a setting ``label`` names a
            row. Or a YAML file with a list ``systems`` of such words.

    Raises:
        ConfigError: If there is none, a name is unknown, or two rows have one label.
    """
    if words.endswith((".yaml", ".yml")):
        values = parse_yaml(Path(words).read_text(encoding="utf-8"), words)
        rows = values.get("systems") if isinstance(values, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, str) for row in rows):
            raise ConfigError(f"{words}: expected a list 'systems' of words such as encodec@kbps=3")
        parts = [str(row) for row in rows]
    else:
        parts = [word.strip() for word in words.split(",") if word.strip()]
    specs = [_parse(part) for part in parts]
    labels = [spec.label for spec in specs]
    if not specs:
        raise ConfigError("no systems given; name them with commas, such as --systems nano,encodec@kbps=3")
    for label in labels:
        if labels.count(label) > 1:
            raise ConfigError(f"two systems are called {label!r}; tell them apart with @label=NAME")
    return specs


def _parse(word: str) -> Spec:
    name, *settings = word.split("@")
    if name.endswith(".py"):
        name = _import_file(Path(name))
    SYSTEMS.classes(name)
    given = {key: value for key, _, value in (setting.partition("=") for setting in settings)}
    if "" in given or not all("=" in setting for setting in settings):
        raise ConfigError(f"{word}: settings are written @key=value, such as encodec@kbps=3")
    default = " ".join([name, *(_short(value) for key, value in given.items() if key != "label")])
    return Spec(given.get("label") or default, name, tuple(s for s in settings if not s.startswith("label=")))


def _short(value: str) -> str:
    """A setting in a label: of a path its last part."""
    return Path(value).name if "/" in value and "://" not in value else value


def _import_file(file: Path) -> str:
    """Run a file that registers a system under the file's own name, and give that name."""
    found = importlib.util.spec_from_file_location(f"uniaudio2_system_{file.stem}", file)
    if found is None or found.loader is None or not file.is_file():
        raise ConfigError(f"{file}: no such file; a system is a name or a Python file, see docs/extend/system.md")
    found.loader.exec_module(importlib.util.module_from_spec(found))
    return file.stem


def load_system(spec: Spec, **options: Any) -> System:
    """Load a system.

    Args:
        spec: What was asked for.
        options: ``device`` (a name such as ``"cpu"``) and ``download`` (whether weights may be fetched).

    Raises:
        UserError: If a setting is wrong, or weights, a package or a program is missing.
    """
    config_class, cls = SYSTEMS.classes(spec.name)
    config = load_config(config_class, {}, spec.settings, name=spec.label)
    return cls(config, **options)
