"""YAML files as plain values: strict, with one parent, scalars still as written."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from uniaudio2.errors import UserError

_NULLS = {"", "~", "null", "Null", "NULL"}


class ConfigError(UserError):
    """A config that cannot be used: says which file, which key, and what would be accepted."""


class Plain(str):
    """An unquoted YAML scalar, kept as written until the field's type says what it is."""


def is_null(value: Any) -> bool:
    """Whether a value is null, or one of the ways in which YAML writes it."""
    return value is None or (isinstance(value, Plain) and value in _NULLS)


class _Loader(yaml.SafeLoader):
    """YAML loader that leaves unquoted scalars as written and refuses repeated keys and aliases."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuse aliases: a config needs none, and a few lines of them can stand for more values than fit in memory."""
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise ConfigError(
                f"line {event.start_mark.line + 1}: aliases (*{event.anchor}) are not allowed in a config"
            )
        return super().compose_node(parent, index)


def _construct_scalar(loader: _Loader, node: yaml.ScalarNode) -> str:
    value = str(loader.construct_scalar(node))
    return Plain(value) if node.style is None else value


def _construct_mapping(loader: _Loader, node: yaml.MappingNode) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise ConfigError(f"line {key_node.start_mark.line + 1}: a key must be a plain word")
        key = str(key_node.value)
        if key in mapping:
            raise ConfigError(f"line {key_node.start_mark.line + 1}: key '{key}' is given twice")
        mapping[key] = loader.construct_object(value_node, deep=True)
    return mapping


def _refuse_tag(_loader: _Loader, suffix: str, node: yaml.Node) -> Any:
    raise ConfigError(f"line {node.start_mark.line + 1}: tag '!{suffix}' is not allowed in a config")


for _tag in ("str", "int", "float", "bool", "null", "timestamp", "value"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _construct_scalar)
_Loader.add_constructor("tag:yaml.org,2002:map", _construct_mapping)
_Loader.add_multi_constructor("tag:yaml.org,2002:python", _refuse_tag)
_Loader.add_multi_constructor("!", _refuse_tag)


def parse_yaml(text: str, name: str) -> object:
    """What a YAML text holds; ``name`` is what error messages call it."""
    try:
        return yaml.load(text, Loader=_Loader)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        raise ConfigError(f"{name}{line}: not readable as YAML ({problem})") from None
    except RecursionError:
        raise ConfigError(f"{name}: nested too deeply for a config") from None


def read_yaml(path: Path | str) -> dict[str, Any]:
    """Read a YAML mapping, following ``base:`` to a parent file (relative to the file that names it).

    The child's mappings are merged into the parent's, key by key; any other value replaces the parent's.

    Args:
        path: The YAML file.

    Returns:
        The merged mapping. Scalars are still as written; :func:`load_config` gives them their type.

    Raises:
        ConfigError: If a file is missing, is not a YAML mapping, or names itself as its ancestor.
    """
    return _read_with_base(Path(path), ())


def _read_with_base(path: Path, children: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in children:
        raise ConfigError(f"{path}: 'base' leads back to this file")
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        names = sorted(p.name for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        raise ConfigError(f"{path}: no such config file{nearest(path.name, names)}") from None
    except (IsADirectoryError, UnicodeDecodeError) as error:
        what = "a folder" if isinstance(error, OSError) else "not a text file"
        raise ConfigError(f"{path}: is {what}; give a YAML file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    values = parse_yaml(text, str(path))
    if is_null(values):
        values = {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: a config is a mapping of keys to values, not {kind_of(values)}")
    base = values.pop("base", None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise ConfigError(f"{path}: 'base' names one file, not {kind_of(base)}")
    return _merge(_read_with_base(path.parent / base, (*children, path.resolve())), values)


def _merge(parent: dict[str, Any], child: Mapping[str, Any]) -> dict[str, Any]:
    """A child's values over its parent's; a section that names another class has nothing of the parent's."""
    if "name" in child and child["name"] != parent.get("name", child["name"]):
        return dict(child)
    merged = dict(parent)
    for key, value in child.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
    return merged


def nearest(word: str, known: Iterable[str], *, lists: bool = True) -> str:
    """The end of an error message: the known word that is most like an unknown one, or all of them."""
    names = list(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; allowed: {', '.join(names)}" if names and lists else ""


def show(value: Any) -> str:
    """A value as error messages quote it."""
    text = repr(str(value)) if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def kind_of(value: Any) -> str:
    """What a value is, in words."""
    if isinstance(value, Mapping):
        return "a mapping"
    return "a list" if isinstance(value, (list, tuple)) else f"the single value {show(value)}"
