"""Writes ``docs/reference/config.md``: every config key, from the dataclasses and the comments beside their fields.

python docs/config_reference.py
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import sys
import textwrap
import typing
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent / "reference" / "config.md"


def roots() -> list[tuple[str, str, type[Any]]]:
    """Heading, where its presets are, and the dataclass, for everything that a user can set."""
    from uniaudio2.api.settings import GenerationConfig
    from uniaudio2.codec.codec import CodecConfig
    from uniaudio2.codec.registry import AUTOENCODERS, DECODERS, ENCODERS
    from uniaudio2.codec.text_decoder import TextDecoderConfig
    from uniaudio2.lm import LMConfig
    from uniaudio2.train.codec import CODEC_STAGES
    from uniaudio2.train.lm import LMTrainConfig
    from uniaudio2.train.post import PostTrainConfig

    found = [(f"Stage `{name}`", f"configs/train/{name}.yaml", kind) for name, (kind, _) in CODEC_STAGES.items()]
    found.append(("Stages `lm_1` to `lm_4`", "configs/train/lm_1.yaml …", LMTrainConfig))
    found.append(("Stage `lm_post`", "configs/train/lm_post.yaml", PostTrainConfig))
    found += [("Codec", "configs/codec", CodecConfig), ("Language model", "configs/lm", LMConfig)]
    found.append(("How a model generates", "section `generation` of a model folder", GenerationConfig))
    found.append(("Text decoder", "section `text_decoder` of a model folder", TextDecoderConfig))
    for heading, registry in (("Encoder", ENCODERS), ("Autoencoder", AUTOENCODERS), ("Decoder", DECODERS)):
        found += [(f"{heading} `{name}`", "by name in a codec preset", registry.classes(name)[0]) for name in registry]
    return found


def comments_of(cls: type[Any]) -> dict[str, str]:
    """What is said about each field: the comment above it and behind it, or the line of the docstring's attributes."""
    said: dict[str, str] = {}
    for base in reversed(cls.__mro__[:-1]):
        if not dataclasses.is_dataclass(base):
            continue
        source = textwrap.dedent(inspect.getsource(base))
        lines = source.splitlines()
        tree = ast.parse(source).body[0]
        assert isinstance(tree, ast.ClassDef)
        for name, text in re.findall(r"^ {8}(\w+): (.*(?:\n {12}.*)*)", source if inspect.getdoc(base) else "", re.M):
            said[name] = " ".join(text.split())
        for node in tree.body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                words = _comments(lines, node.lineno - 1, (node.end_lineno or node.lineno) - 1)
                if words:
                    said[node.target.id] = words
    return said


def _comments(lines: list[str], first: int, last: int) -> str:
    above, below = [], []
    for line in reversed(lines[:first]):
        if not line.strip().startswith("# ") or line.strip().startswith("# ---"):
            break
        above.insert(0, line.strip()[2:])
    behind = re.search(r"  # (.*)$", lines[last])
    if behind and not behind[1].startswith("pyright:"):
        below.append(behind[1])
    return " ".join(above + below)


def type_name(hint: Any) -> str:
    """A type in the words of the page."""
    if dataclasses.is_dataclass(hint):
        return f"section [{hint.__name__}](#{hint.__name__.lower()})"
    text = getattr(hint, "__name__", "") if isinstance(hint, type) and not typing.get_args(hint) else str(hint)
    text = re.sub(r"typing\.|\w+(\.\w+)+\.(?=\w)", "", text).replace("NoneType", "None")
    text = re.sub(r"Literal\[(.*?)\]", lambda found: found[1].replace(", ", " or "), text)
    return f"`{text}`"


def _about(hint: Any) -> str:
    """What a section is about."""
    return (inspect.getdoc(hint) or "").splitlines()[0] if dataclasses.is_dataclass(hint) else ""


def default_of(field: dataclasses.Field[Any]) -> str:
    """The default of a field; empty where it must be given."""
    if field.default is not dataclasses.MISSING:
        value = field.default
    elif field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    else:
        return ""
    return "its defaults" if dataclasses.is_dataclass(value) else f"`{value!r}`".replace("None", "null")


def sections(cls: type[Any]) -> list[type[Any]]:
    """The dataclasses that its fields are sections of."""
    found = []
    for hint in typing.get_type_hints(cls).values():
        for option in (hint, *typing.get_args(hint)):
            if dataclasses.is_dataclass(option) and isinstance(option, type):
                found.append(option)
    return found


def table(cls: type[Any]) -> list[str]:
    """One line for each key."""
    hints, said = typing.get_type_hints(cls), comments_of(cls)
    lines = ["| Key | Type | Default | Meaning |", "|---|---|---|---|"]
    for field in dataclasses.fields(cls):
        about = "which stage this is" if field.name == "stage" else _about(hints[field.name])
        meaning = said.get(field.name) or about
        cells = (f"`{field.name}`", type_name(hints[field.name]), default_of(field), meaning)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return lines


def page() -> str:
    """The whole page."""
    lines = [
        "# Config keys",
        "",
        "Made by `python docs/config_reference.py` from the dataclasses; do not edit. A value is set in a YAML file or",
        "on the command line (`train.lr=1e-3`); a key without a default must be given. Sections stand at the end.",
        "",
    ]
    shared: list[type[Any]] = []
    for heading, place, cls in roots():
        lines += [f"## {heading}", "", f"{_about(cls)} Presets: {place}.", "", *table(cls), ""]
        shared += sections(cls)
    lines += ["## Sections", ""]
    for cls in shared:  # grows while it is read: sections have sections
        shared += [one for one in sections(cls) if one not in shared]
    for cls in sorted(dict.fromkeys(shared), key=lambda one: one.__name__):
        lines += [f"### {cls.__name__}", "", _about(cls), "", *table(cls), ""]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    PAGE.write_text(page(), encoding="utf-8")
