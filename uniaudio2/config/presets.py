"""Presets that are shipped with the package."""

from __future__ import annotations

from pathlib import Path

from uniaudio2.config.read import ConfigError, nearest

CONFIG_FOLDER = Path(__file__).parents[1] / "configs"


def list_presets(kind: str) -> list[str]:
    """Names of the shipped presets of one kind: ``codec``, ``lm``, ``train``, …"""
    folder = CONFIG_FOLDER / kind
    if not folder.is_dir():
        kinds = sorted(p.name for p in CONFIG_FOLDER.iterdir() if p.is_dir())
        raise ConfigError(f"no presets of kind '{kind}'{nearest(kind, kinds)}")
    return sorted(p.stem for p in folder.glob("*.yaml"))


def preset_path(kind: str, name: str) -> Path:
    """The YAML file of a shipped preset, by its name; a name that ends in ``.yaml`` or ``.yml`` is a path of one's own.

    Raises:
        ConfigError: If there is no such preset; the message lists those there are.
    """
    if name.endswith((".yaml", ".yml")):
        return Path(name)
    names = list_presets(kind)
    if name not in names:
        raise ConfigError(f"no {kind} preset '{name}'{nearest(name, names)}")
    return CONFIG_FOLDER / kind / f"{name}.yaml"
