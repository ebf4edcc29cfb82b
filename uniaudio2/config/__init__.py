"""Configs: a frozen dataclass is the schema, a YAML file holds the values.

Knows nothing about models. Every value is converted by the declared type of its field, so ``1e-4`` is a number in a
float field and ``no`` is a word in a text field. Anything unknown, missing or of a wrong type is a :class:`ConfigError`
that names the file, the key and the nearest valid name.

Choice: own code, because pydantic, cattrs, mashumaro, dacite and OmegaConf let unknown keys of plain dataclasses pass
or fail on ``int | str``, name no nearest key, and would replace a third of this code only.
"""

from uniaudio2.config.fields import config_to_dict, dump_config, load_config, to_plain
from uniaudio2.config.presets import CONFIG_FOLDER, list_presets, preset_path
from uniaudio2.config.read import ConfigError, read_yaml

__all__ = [
    "CONFIG_FOLDER",
    "ConfigError",
    "config_to_dict",
    "dump_config",
    "list_presets",
    "load_config",
    "preset_path",
    "read_yaml",
    "to_plain",
]
