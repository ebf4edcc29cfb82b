"""Values by the declared types of dataclass fields, and back to plain ones."""

from __future__ import annotations

import dataclasses
import enum
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from uniaudio2.config.read import ConfigError, Plain, is_null, kind_of, nearest, parse_yaml, read_yaml, show
from uniaudio2.files import write_text

ConfigT = TypeVar("ConfigT")

MAX_DIGITS = 400  # a longer row of digits is taken as text; Python itself refuses to read it as a number

_INT = re.compile(r"[-+]?[0-9][0-9_]*")
_FLOAT = re.compile(r"[-+]?([0-9][0-9_]*\.?[0-9_]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
_SPECIAL_FLOATS = {".inf": "inf", "-.inf": "-inf", "+.inf": "inf", ".nan": "nan", "inf": "inf", "-inf": "-inf"}
_BOOLS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def load_config(
    cls: type[ConfigT],
    source: Path | str | Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    name: str | None = None,
) -> ConfigT:
    """Build a config dataclass from a YAML file or a mapping, strictly.

    Args:
        cls: A dataclass. Fields may be ``int``, ``float``, ``str``, ``bool``, ``Path``, ``Literal``, enums, nested
            dataclasses, ``tuple[X, ...]``, ``tuple[X, Y]``, ``list[X]``, ``dict[str, X]``, ``Any`` and unions of them.
            A dataclass may tell by ``other_form(values)`` that values are of another schema, an earlier or a shorter
            one: a dataclass whose instances give the full form by ``upgraded()``.
        source: Path of a YAML file (with an optional ``base:`` parent), or a mapping.
        overrides: ``key.subkey=value`` words as from a command line; the value is read as YAML. A number in the key
            selects an item of a list.
        name: What error messages call the source; by default the file's path.

    Returns:
        An instance of ``cls``.

    Raises:
        ConfigError: On an unknown key, a missing key, a wrong type, or a value that the dataclass itself refuses.
    """
    if isinstance(source, Mapping):
        name = name or "config"
        values: dict[str, Any] = dict(source)
    else:
        name = name or str(source)
        values = read_yaml(source)
    for override in overrides:
        values = _apply_override(values, override)
    return typing.cast(ConfigT, _to_dataclass(values, cls, "", name))


def _apply_override(values: dict[str, Any], override: str) -> dict[str, Any]:
    key, separator, text = override.partition("=")
    parts = key.strip().split(".")
    if not separator or not all(parts):
        raise ConfigError(f"override '{override}': write it as key=value, for example lr=1e-4 or model.dim=256")
    value = parse_yaml(text, f"override '{override}'")
    return _set_in(values, parts, Plain("null") if value is None else value, override)


def _set_in(container: Any, parts: list[str], value: Any, override: str) -> Any:
    if not parts:
        return value
    head, rest = parts[0], parts[1:]
    if isinstance(container, (list, tuple)):
        if not head.isdigit() or int(head) >= len(container):
            raise ConfigError(f"override '{override}': '{head}' is not one of the items 0 to {len(container) - 1}")
        items = list(container)
        items[int(head)] = _set_in(items[int(head)], rest, value, override)
        return items
    changed = dict(container) if isinstance(container, Mapping) else {}
    changed[head] = _set_in(changed.get(head), rest, value, override)
    return changed


def _to_dataclass(values: Any, cls: type[Any], where: str, name: str) -> Any:
    if dataclasses.is_dataclass(values) and isinstance(values, cls):
        return values
    if is_null(values):
        values = {}
    other = cls.other_form(values) if hasattr(cls, "other_form") and isinstance(values, Mapping) else None
    if other is not None:
        return _make(_to_dataclass(values, other, where, name).upgraded, where, name)
    if not isinstance(values, Mapping):
        raise _error(name, where, f"needs a mapping of keys to values ({cls.__name__}), not {kind_of(values)}")
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    for key in values:
        if key not in fields:
            raise ConfigError(f"{name}: unknown key '{_join(where, str(key))}'{nearest(str(key), fields)}")
    converted: dict[str, Any] = {}
    for key, field in fields.items():
        if key in values:
            converted[key] = _convert(values[key], hints[key], _join(where, key), name)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            hint = nearest(key, [str(k) for k in values if k not in fields])
            raise ConfigError(f"{name}: missing key '{_join(where, key)}' ({_type_name(hints[key])}){hint}")
    return _make(lambda: cls(**converted), where, name)


def _make(make: Callable[[], Any], where: str, name: str) -> Any:
    """Run a constructor; what it refuses is an error of the section."""
    try:
        return make()
    except ConfigError:
        raise
    except (ValueError, TypeError) as error:
        section = f" section '{where}':" if where else ""
        raise ConfigError(f"{name}:{section} {error}") from error


def _convert(value: Any, hint: Any, where: str, name: str) -> Any:
    """Turn ``value`` into the declared type ``hint``, or say why it cannot be."""
    if hint is Any or hint is object:
        return _natural(value)
    origin = typing.get_origin(hint)
    if origin is typing.Union or origin is types.UnionType:
        return _convert_union(value, typing.get_args(hint), where, name)
    if origin is Literal:
        return _convert_literal(value, typing.get_args(hint), where, name)
    if dataclasses.is_dataclass(hint):
        return _to_dataclass(value, typing.cast(type[Any], hint), where, name)
    if origin in (tuple, list, Sequence) or hint in (tuple, list):
        return _convert_sequence(value, hint, where, name)
    if origin in (dict, Mapping) or hint is dict:
        return _convert_mapping(value, hint, where, name)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return hint(_convert_literal(value, tuple(member.value for member in hint), where, name))
    return _convert_scalar(value, hint, where, name)


def _convert_union(value: Any, options: tuple[Any, ...], where: str, name: str) -> Any:
    if type(None) in options and is_null(value):
        return None
    rest = [option for option in options if option is not type(None)]
    if len(rest) == 1:
        return _convert(value, rest[0], where, name)
    for option in sorted(rest, key=lambda option: option is str):
        try:
            return _convert(value, option, where, name)
        except ConfigError:
            continue
    names = " or ".join(_type_name(option) for option in options)
    raise _error(name, where, f"needs {names}, got {show(value)}")


def _convert_literal(value: Any, options: tuple[Any, ...], where: str, name: str) -> Any:
    for option in options:
        if isinstance(option, str):
            if isinstance(value, str) and str(value) == option:
                return option
        elif _natural(value) == option and isinstance(_natural(value), type(option)):
            return option
    known = [str(option) for option in options]
    hint = nearest(str(value), known, lists=False)
    raise _error(name, where, f"is {show(value)}; allowed: {', '.join(known)}{hint}")


def _convert_sequence(value: Any, hint: Any, where: str, name: str) -> Any:
    kind = tuple if hint is tuple or typing.get_origin(hint) is tuple else list
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise _error(name, where, f"needs a list ({_type_name(hint)}), got {show(value)}")
    items = list(value)
    arguments = typing.get_args(hint)
    if kind is tuple and arguments and Ellipsis not in arguments:
        if len(items) != len(arguments):
            raise _error(name, where, f"needs {len(arguments)} values, got {len(items)}")
        types_of_items: list[Any] = list(arguments)
    else:
        types_of_items = [arguments[0] if arguments else Any] * len(items)
    pairs = enumerate(zip(items, types_of_items, strict=True))
    return kind(_convert(item, item_type, _join(where, str(i)), name) for i, (item, item_type) in pairs)


def _convert_mapping(value: Any, hint: Any, where: str, name: str) -> dict[Any, Any]:
    if is_null(value):
        value = {}
    if not isinstance(value, Mapping):
        raise _error(name, where, f"needs a mapping ({_type_name(hint)}), got {show(value)}")
    key_type, value_type = typing.get_args(hint) or (str, Any)
    places = {key: _join(where, str(key)) for key in value}
    keys = {key: _convert(Plain(str(key)), key_type, place, name) for key, place in places.items()}
    return {keys[key]: _convert(item, value_type, places[key], name) for key, item in value.items()}


def _convert_scalar(value: Any, hint: Any, where: str, name: str) -> Any:
    natural = _natural(value)
    if hint is bool and isinstance(natural, bool):
        return natural
    if hint is int and isinstance(natural, int) and not isinstance(natural, bool):
        return natural
    if hint is float and isinstance(natural, (int, float)) and not isinstance(natural, bool):
        return float(natural)
    if hint is str and isinstance(value, str):
        if is_null(value):
            raise _error(name, where, "needs text, but is empty; write '' for an empty text")
        return str(value)
    if hint is Path and isinstance(value, (str, Path)):
        return Path(str(value))
    known = hint in (bool, int, float, str, Path)
    problem = (
        f"needs {_type_name(hint)}, got {show(value)}" if known else f"has the unsupported type {_type_name(hint)}"
    )
    raise _error(name, where, problem)


def _natural(value: Any) -> Any:
    """Plain YAML words as the values they look like; ``1e-4`` is a number here."""
    if isinstance(value, Mapping):
        return {str(key): _natural(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_natural(item) for item in value]
    if not isinstance(value, Plain):
        return value
    if is_null(value):
        return None
    if value.lower() in _BOOLS:
        return _BOOLS[value.lower()]
    if value.lower() in _SPECIAL_FLOATS:
        return float(_SPECIAL_FLOATS[value.lower()])
    if _INT.fullmatch(value) and len(value) <= MAX_DIGITS:
        return int(value)
    return float(value) if _FLOAT.fullmatch(value) else str(value)


def to_plain(value: Any) -> Any:
    """Plain ``dict``, ``list``, text, number, bool or None for a value from :func:`read_yaml` or a config field."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return config_to_dict(value)
    if isinstance(value, enum.Enum):
        return to_plain(value.value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    return _natural(value)


def config_to_dict(config: Any) -> dict[str, Any]:
    """A config dataclass as plain nested ``dict`` and ``list``, which :func:`load_config` turns back into its equal."""
    return {field.name: to_plain(getattr(config, field.name)) for field in dataclasses.fields(config) if field.init}


def dump_config(config: Any, path: Path | str) -> None:
    """Write a config dataclass (or a plain mapping) as YAML; the file appears whole or not at all."""
    write_text(path, yaml.safe_dump(to_plain(config), sort_keys=False, allow_unicode=True, width=120))


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _error(name: str, where: str, problem: str) -> ConfigError:
    return ConfigError(f"{name}: '{where}' {problem}" if where else f"{name}: {problem}")


def _type_name(hint: Any) -> str:
    words = {int: "a whole number", float: "a number", str: "text", bool: "true or false", Path: "a path"}
    words[type(None)] = "null"
    if hint in words:
        return words[hint]
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
