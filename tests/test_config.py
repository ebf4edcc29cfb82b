"""Configs: strict, typed, with parents and overrides, and errors that name file, key and nearest name."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from uniaudio2.config import (
    ConfigError,
    config_to_dict,
    dump_config,
    list_presets,
    load_config,
    preset_path,
    read_yaml,
    to_plain,
)


@dataclass(frozen=True)
class Layer:
    width: int
    dropout: float = 0.0
    kind: Literal["conv", "attention"] = "conv"

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"width must be at least 1, got {self.width}")


@dataclass(frozen=True)
class Model:
    layer: Layer
    rates: tuple[int, ...] = (1, 2)
    pair: tuple[int, str] = (1, "a")
    layers: tuple[Layer, ...] = ()
    language: str = "en"
    limit: float | None = None
    enabled: bool = True
    folder: Path = Path()
    extra: dict[str, Any] = field(default_factory=dict)
    size: int | str = 3


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_values_are_converted_by_declared_type(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.yaml",
        "layer: {width: 8, dropout: 1e-4}\nlanguage: no\nlimit: 3\nenabled: no\nrates: [4, 5]\npair: [2, yes]\n"
        "folder: runs/x\nextra: {lr: 1e-4, deep: [1, {a: no}], word: '5'}\n"
        "layers: [{width: 1}, {width: 2}]\nsize: big\n",
    )
    model = load_config(Model, path)
    assert model.layer == Layer(8, 1e-4)
    assert model.language == "no" and model.enabled is False
    assert model.limit == 3.0 and isinstance(model.limit, float)
    assert model.rates == (4, 5) and model.pair == (2, "yes")
    assert model.folder == Path("runs/x")
    assert model.extra == {"lr": 1e-4, "deep": [1, {"a": False}], "word": "5"}
    assert model.layers == (Layer(1), Layer(2)) and model.size == "big"


def test_round_trip_through_file_and_dict(tmp_path: Path) -> None:
    model = Model(Layer(3, 1e-7, "attention"), language="no", limit=None, extra={"on": "off", "n": 1e300}, size="7")
    dump_config(model, tmp_path / "b.yaml")
    assert load_config(Model, tmp_path / "b.yaml") == model
    assert load_config(Model, config_to_dict(model)) == model
    assert not list(tmp_path.glob("*.tmp"))


def test_base_is_merged_key_by_key(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    write(tmp_path / "parent.yaml", "layer: {width: 8, dropout: 0.5}\nrates: [1, 2, 3]\n")
    child = write(tmp_path / "sub" / "child.yaml", "base: ../parent.yaml\nlayer: {width: 9}\nrates: [7]\n")
    assert load_config(Model, child) == Model(Layer(9, 0.5), rates=(7,))


def test_base_cycle_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", "base: b.yaml\n")
    write(tmp_path / "b.yaml", "base: a.yaml\n")
    with pytest.raises(ConfigError, match="leads back"):
        read_yaml(tmp_path / "a.yaml")


def test_overrides_go_through_the_same_check() -> None:
    values = {"layer": {"width": 1}, "layers": [{"width": 1}, {"width": 2}]}
    model = load_config(
        Model, values, ["layer.dropout=1e-3", "rates=[3,4]", "limit=null", "layers.1.width=5", "extra.a.b=yes"]
    )
    assert model.layer.dropout == 1e-3 and model.rates == (3, 4) and model.limit is None
    assert model.layers[1].width == 5 and model.extra == {"a": {"b": True}}
    assert values["layers"] == [{"width": 1}, {"width": 2}]  # the source is left alone
    with pytest.raises(ConfigError, match=r"unknown key 'layer\.widht'; did you mean 'width'"):
        load_config(Model, values, ["layer.widht=3"])
    with pytest.raises(ConfigError, match="key=value"):
        load_config(Model, values, ["layer.width"])
    with pytest.raises(ConfigError, match="items 0 to 1"):
        load_config(Model, values, ["layers.2.width=1"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("layer: {width: 1}\nlangauge: en\n", "unknown key 'langauge'; did you mean 'language'"),
        ("{}\n", r"missing key 'layer'"),
        ("", r"missing key 'layer'"),
        ("layr: {width: 1}\n", "unknown key 'layr'; did you mean 'layer'"),
        ("layer: {}\n", r"missing key 'layer\.width' \(a whole number\)"),
        ("layer: {width: 1.5}\n", r"'layer\.width' needs a whole number, got '1\.5'"),
        ("layer: {width: true}\n", "needs a whole number"),
        ("layer: {width: '3'}\n", "needs a whole number"),
        ("layer: {width: 0}\n", "section 'layer': width must be at least 1, got 0"),
        ("layer: {width: 1, kind: atention}\n", "allowed: conv, attention; did you mean 'attention'"),
        ("layer: 3\n", "needs a mapping"),
        ("layer: {width: 1}\nrates: 5\n", "'rates' needs a list"),
        ("layer: {width: 1}\nrates: abc\n", "'rates' needs a list"),
        ("layer: {width: 1}\nrates: [1, x]\n", r"'rates\.1' needs a whole number"),
        ("layer: {width: 1}\npair: [1]\n", "needs 2 values, got 1"),
        ("layer: {width: 1}\nenabled: maybe\n", "'enabled' needs true or false"),
        ("layer: {width: 1}\nlanguage:\n", "needs text, but is empty"),
        ("layer: {width: 1, width: 2}\n", "'width' is given twice"),
        ("- 1\n- 2\n", "not a list"),
        ("just words\n", "not the single value"),
        ("layer: {width: 1\n", "not readable as YAML"),
        ("layer: !!python/object/apply:os.system ['true']\n", "not allowed"),
        ("layer: !mine {width: 1}\n", "not allowed"),
        ("? [a, b]\n: 1\n", "must be a plain word"),
        ("base: [1]\n", "'base' names one file"),
        ("base: absent.yaml\n", "no such config file"),
    ],
)
def test_errors_name_the_file_and_the_remedy(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "bad.yaml", text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(Model, path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unreadable_files(tmp_path: Path) -> None:
    write(tmp_path / "tiny.yaml", "")
    with pytest.raises(ConfigError, match=r"no such config file; did you mean 'tiny\.yaml'"):
        read_yaml(tmp_path / "tny.yaml")
    with pytest.raises(ConfigError, match="is a folder"):
        read_yaml(tmp_path)
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ConfigError, match="not a text file|not readable"):
        read_yaml(tmp_path / "x.yaml")


def test_deep_nesting_is_one_clear_error(tmp_path: Path) -> None:
    path = write(tmp_path / "deep.yaml", "a: " + "[" * 5000 + "]" * 5000)
    with pytest.raises(ConfigError):
        read_yaml(path)


def test_presets_are_found_by_name() -> None:
    for kind in ("codec", "lm", "train"):
        for name in list_presets(kind):
            assert preset_path(kind, name).is_file()
    with pytest.raises(ConfigError, match="no presets of kind 'codecs'; did you mean 'codec'"):
        list_presets("codecs")
    with pytest.raises(ConfigError, match="no lm preset 'giant'"):
        preset_path("lm", "giant")


def test_to_plain_gives_natural_values(tmp_path: Path) -> None:
    path = write(tmp_path / "n.yaml", "a: 1e-4\nb: no\nc: null\nd: 'no'\ne: [1, 2.5, .inf, 1_000]\nf: 2024-01-01\n")
    assert to_plain(read_yaml(path)) == {
        "a": 1e-4,
        "b": False,
        "c": None,
        "d": "no",
        "e": [1, 2.5, float("inf"), 1000],
        "f": "2024-01-01",
    }


def test_a_section_that_names_another_class_starts_afresh(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("part: {name: one, config: {a: 1, b: 2}}\nother: {c: 3}\n")
    for name, wanted in (("one", {"a": 5, "b": 2}), ("two", {"a": 5})):
        (tmp_path / "child.yaml").write_text(f"base: base.yaml\npart: {{name: {name}, config: {{a: 5}}}}\n")
        values = to_plain(read_yaml(tmp_path / "child.yaml"))
        assert values == {"part": {"name": name, "config": wanted}, "other": {"c": 3}}
