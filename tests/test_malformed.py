"""More than 200 malformed checkpoints, configs and codes files, each on the path where a user would meet it.

Every case starts from files that work, damages one of them, and runs one command in this process. What must come of it:
a non-zero exit code, one line that names what is wrong, no traceback, nothing executed from any file, nothing written.
The cases are generated from lists and a fixed seed, so they are the same in every run.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import random
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
import yaml
from safetensors.torch import load_file, save_file

from tests.test_convert import IDS, OVERRIDES, published_codec, write_codec, write_llama
from tests.tiny_model import make_tiny_model
from uniaudio2 import UniAudio2
from uniaudio2.cli import execute
from uniaudio2.codes import AudioCodes
from uniaudio2.config import load_config, preset_path
from uniaudio2.lm.model import AudioLM, LMConfig, published_lm_key

RAW = (  # words of Python's and PyTorch's own errors, which tell a user nothing
    r"object has no attribute|values to unpack|index out of range|NoneType|unsupported operand|invalid literal|"
    r"unhashable|positional argument|division by zero|must be real number|Error\(|<class|not iterable|"
    r"not subscriptable|codec can't|Expecting value|__init__|KeyError"
)
LONGEST = 500  # characters of a line
SEED = 20


class Evil:
    """Would create a folder if it were unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, (str(self.proof),))


Damage = Callable[[Path, Path], None]  # (file, folder that evil code would make)


@dataclass(frozen=True)
class Case:
    """One damage to one file of one kind of setting."""

    setting: str
    file: str
    name: str
    damage: Damage

    @property
    def id(self) -> str:
        return f"{self.setting}-{self.file}-{self.name}".replace(" ", "_")


# -- ways to damage a file --------------------------------------------------------------------------------------------


def put(path: Path, data: bytes | str) -> None:
    """Replace a file, which may be a link to the good one."""
    path.unlink(missing_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)


def content(data: bytes | str) -> Damage:
    return lambda path, proof: put(path, data)


def changed(change: Callable[[bytes], bytes]) -> Damage:
    return lambda path, proof: put(path, change(path.read_bytes()))


def gone(path: Path, proof: Path) -> None:
    path.unlink()


def folder(path: Path, proof: Path) -> None:
    path.unlink()
    path.mkdir()


def dangling(path: Path, proof: Path) -> None:
    path.unlink()
    path.symlink_to(path.parent / "nowhere")


def pipe(path: Path, proof: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def evil_pickle(protocol: int) -> Damage:
    return lambda path, proof: put(path, pickle.dumps(Evil(proof), protocol))


def evil_torch(*, wrap: Callable[[Any], Any], zipped: bool) -> Damage:
    def damage(path: Path, proof: Path) -> None:
        data = io.BytesIO()
        torch.save(wrap(Evil(proof)), data, _use_new_zipfile_serialization=zipped)
        put(path, data.getvalue())

    return damage


def bomb(entry: str) -> Damage:
    """A small archive that unpacks to 50 MB."""

    def damage(path: Path, proof: Path) -> None:
        data = io.BytesIO()
        with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(entry, bytes(50_000_000))
        put(path, data.getvalue())

    return damage


def saved(value: Any) -> Damage:
    """A torch file of this value."""

    def damage(path: Path, proof: Path) -> None:
        data = io.BytesIO()
        torch.save(value, data)
        put(path, data.getvalue())

    return damage


def lines(count: int = 200) -> bytes:
    return b"".join(b"line %d of something else\n" % number for number in range(count))


NOT_THE_FILE: dict[str, Damage] = {
    "empty": content(b""),
    "folder": folder,
    "one byte": content(b"\x00"),
    "zeros": content(bytes(4096)),
    "text": content(lines()),
    "web page": content("<!DOCTYPE html><html><body>404 Not Found</body></html>\n" * 20),
    "pointer of large file storage": content("version https://git-lfs.example/spec/v1\noid sha256:00\nsize 1\n"),
    "random bytes": content(random.Random(SEED).randbytes(5000)),
    "gzipped": changed(gzip.compress),
    "dangling link": dangling,
    "pickle that runs code, protocol 0": evil_pickle(0),
    "pickle that runs code, protocol 2": evil_pickle(2),
    "pickle that runs code, protocol 4": evil_pickle(4),
    "torch file that runs code": evil_torch(wrap=lambda evil: evil, zipped=True),
    "old torch file that runs code": evil_torch(wrap=lambda evil: {"model": evil}, zipped=False),
    "torch file with code beside tensors": evil_torch(wrap=lambda evil: {"a": torch.ones(2), "b": evil}, zipped=True),
    "zip bomb": bomb("archive/data.pkl"),
    "zip of other files": bomb("readme.txt"),
}


def cut(share: float) -> Damage:
    return changed(lambda data: data[: max(1, int(len(data) * share))])


CUT: dict[str, Damage] = {f"cut at {share}": cut(share) for share in (0.001, 0.1, 0.37, 0.5, 0.83, 0.99, 0.9999)}


# -- safetensors ------------------------------------------------------------------------------------------------------


def header_length(length: int) -> Damage:
    return changed(lambda data: (length % 2**64).to_bytes(8, "little") + data[8:])


def relative_length(extra: int) -> Damage:
    return changed(lambda data: (int.from_bytes(data[:8], "little") + extra).to_bytes(8, "little") + data[8:])


def header(change: Callable[[dict[str, Any]], Any]) -> Damage:
    """Rewrite the header; ``change`` alters it in place, or returns what to write (bytes as they are)."""

    def rewrite(data: bytes) -> bytes:
        size = int.from_bytes(data[:8], "little")
        values = json.loads(data[8 : 8 + size])
        new = change(values)
        text = new if isinstance(new, bytes) else json.dumps(values if new is None else new).encode()
        return len(text).to_bytes(8, "little") + text + data[8 + size :]

    return changed(rewrite)


def entry(**changes: Any) -> Damage:
    """Rewrite the first tensor's entry; None removes a field."""

    def change(values: dict[str, Any]) -> None:
        name = next(name for name in values if name != "__metadata__")
        values[name] = {key: value for key, value in {**values[name], **changes}.items() if value is not None}

    return header(change)


HEADER_LIES: dict[str, Damage] = {
    "header of no bytes": header_length(0),
    "header of one byte": header_length(1),
    "header a byte too short": relative_length(-1),
    "header a byte too long": relative_length(1),
    "header longer than the file": relative_length(10**9),
    "header of 4 GB": header_length(2**32),
    "header of 2^63 bytes": header_length(2**63),
    "header of -1 bytes": header_length(-1),
    "header no JSON": header(lambda values: b"{this is not json"),
    "header not UTF-8": header(lambda values: b'{"\xff\xfe": 1}'),
    "header a list": header(lambda values: [1, 2, 3]),
    "header a number": header(lambda values: 7),
    "header nested deeply": header(lambda values: b"[" * 100_000),
    "header of nothing": header(lambda values: {}),
    "entry null": header(lambda values: {**values, next(reversed(values)): None}),
    "entry twice": header(
        lambda values: (
            json.dumps(values)[:-1].encode()
            + b',"'
            + next(reversed(values)).encode()
            + b'":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
        )
    ),
    "metadata a list": header(lambda values: {**values, "__metadata__": [1]}),
    "metadata of numbers": header(lambda values: {**values, "__metadata__": {"format": 5}}),
    "type unknown": entry(dtype="F128"),
    "type empty": entry(dtype=""),
    "type a number": entry(dtype=32),
    "type of complex numbers": entry(dtype="C64"),
    "type wider than the values": entry(dtype="F64"),
    "type missing": entry(dtype=None),
    "shape negative": entry(shape=[-1, 4]),
    "shape larger than the values": entry(shape=[10**6, 10**6]),
    "shape that overflows": entry(shape=[2**62, 2**62, 4]),
    "shape of words": entry(shape=["a", "b"]),
    "shape of fractions": entry(shape=[1.5, 2.0]),
    "shape a number": entry(shape=5),
    "shape missing": entry(shape=None),
    "offsets missing": entry(data_offsets=None),
    "offsets reversed": entry(data_offsets=[64, 0]),
    "offsets negative": entry(data_offsets=[-64, 0]),
    "offsets beyond the end": entry(data_offsets=[0, 10**15]),
    "offsets of words": entry(data_offsets=["0", "64"]),
    "one offset": entry(data_offsets=[0]),
    "bytes behind the values": changed(lambda data: data + bytes(100)),
}


def tensors(change: Callable[[dict[str, torch.Tensor]], Any]) -> Damage:
    """Rewrite a safetensors file with other tensors."""

    def damage(path: Path, proof: Path) -> None:
        found = {name: tensor.clone() for name, tensor in load_file(path).items()}
        new = change(found)
        path.unlink()
        save_file({k: v.contiguous() for k, v in (found if new is None else new).items()}, path, {"format": "pt"})

    return damage


def without(name: str) -> Callable[[dict[str, Any]], None]:
    """A change that removes one value."""

    def change(values: dict[str, Any]) -> None:
        del values[name]

    return change


def matrix(values: dict[str, torch.Tensor]) -> str:
    """Name of the first floating-point matrix that is a weight."""
    return next(name for name in sorted(values) if values[name].ndim == 2 and name.endswith("weight"))


def with_matrix(change: Callable[[torch.Tensor], torch.Tensor]) -> Damage:
    return tensors(lambda values: values | {matrix(values): change(values[matrix(values)])})


def set_first(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(tensor: torch.Tensor) -> torch.Tensor:
        tensor.view(-1)[-1] = value
        return tensor

    return change


WRONG_WEIGHTS: dict[str, Damage] = {
    "no tensor": tensors(lambda values: {}),
    "one tensor only": tensors(lambda values: {matrix(values): values[matrix(values)]}),
    "a tensor missing": tensors(lambda values: without(matrix(values))(values)),
    "a tensor too many": tensors(lambda values: values | {"another.weight": torch.ones(2, 2)}),
    "a tensor renamed": tensors(lambda values: values | {matrix(values) + "_": values.pop(matrix(values))}),
    "names with a prefix": tensors(lambda values: {f"module.{name}": tensor for name, tensor in values.items()}),
    "names empty": tensors(lambda values: values | {"": torch.ones(1)}),
    "a matrix turned": with_matrix(lambda tensor: tensor.T.reshape(-1, *tensor.shape, 1)),
    "a matrix flat": with_matrix(lambda tensor: tensor.reshape(-1)),
    "a matrix cut": with_matrix(lambda tensor: tensor[:-1]),
    "a matrix empty": with_matrix(lambda tensor: tensor[:0]),
    "a matrix scalar": with_matrix(lambda tensor: tensor.sum()),
    "NaN in a weight": with_matrix(set_first(float("nan"))),
    "infinity in a weight": with_matrix(set_first(float("inf"))),
    "NaN everywhere": tensors(lambda v: {n: t * float("nan") if t.is_floating_point() else t for n, t in v.items()}),
    "weights of whole numbers": with_matrix(lambda tensor: tensor.long()),
    "weights of bits": with_matrix(lambda tensor: tensor > 0),
    "8-bit weights without a scale": with_matrix(lambda tensor: tensor.to(torch.int8)),
    "a scale of another shape": tensors(
        lambda v: v | {matrix(v): v[matrix(v)].to(torch.int8), f"{matrix(v)}.scale": torch.ones(3, 3, 3)}
    ),
    "a scale that is NaN": tensors(
        lambda v: (
            v
            | {
                matrix(v): torch.ones_like(v[matrix(v)], dtype=torch.int8),
                f"{matrix(v)}.scale": torch.full((len(v[matrix(v)]), 1), float("nan")).half(),
            }
        )
    ),
    "a scale of whole numbers": tensors(
        lambda v: (
            v
            | {
                matrix(v): torch.ones_like(v[matrix(v)], dtype=torch.int8),
                f"{matrix(v)}.scale": torch.ones(len(v[matrix(v)]), 1, dtype=torch.int32),
            }
        )
    ),
}


# -- configs ----------------------------------------------------------------------------------------------------------


def yaml_with(change: Callable[[dict[str, Any]], Any]) -> Damage:
    """Rewrite a YAML file; ``change`` alters its values in place, or returns others."""

    def damage(path: Path, proof: Path) -> None:
        values = yaml.safe_load(path.read_text())
        new = change(values)
        put(path, yaml.safe_dump(values if new is None else new))

    return damage


def at(place: str, value: Any) -> Damage:
    """Set one value in a YAML file, by its path with dots; ``...`` removes it."""

    def change(values: dict[str, Any]) -> None:
        *way, last = place.split(".")
        for step in way:
            values = values[int(step) if isinstance(values, list) else step]  # type: ignore[call-overload]
        if value is ...:
            del values[last]
        else:
            values[last] = value

    return yaml_with(change)


def tag(text: str) -> Damage:
    def damage(path: Path, proof: Path) -> None:
        put(path, path.read_text() + text.replace("PROOF", str(proof)).replace("SELF", path.name))

    return damage


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)

NOT_A_CONFIG: dict[str, Damage] = {
    "empty": content(""),
    "text": content(lines()),
    "a list": content("- 1\n- 2\n"),
    "a single value": content("42\n"),
    "no YAML": content("codec: [1, 2\nlm: }\n"),
    "tabs": content("codec:\n\t\tdim: 3\n"),
    "bytes": content(random.Random(SEED).randbytes(300)),
    "UTF-16": changed(lambda data: data.decode().encode("utf-16")),
    "nested deeply": content("a: " + "[" * 20_000),
    "aliases that multiply": tag("\n" + LAUGHS),
    "an alias to itself": tag("\nloop: &loop [*loop]\n"),
    "a tag that runs code": tag("\nextra: !!python/object/apply:os.mkdir ['PROOF']\n"),
    "a tag that makes an object": tag("\nextra: !!python/object/new:os.system ['mkdir PROOF']\n"),
    "a tag for a name": tag("\nextra: !!python/name:os.system\n"),
    "a tag of one's own": tag("\nextra: !load weights.bin\n"),
    "a key twice": tag("\nformat: uniaudio2\nformat: uniaudio2\n"),
    "a key that is a list": tag("\n? [a, b]\n: 1\n"),
    "an unknown key at the end": tag("\nunknown_key_of_mine: 1\n"),
    "a parent that is absent": tag("\nbase: absent.yaml\n"),
    "a parent that is itself": tag("\nbase: SELF\n"),
    "a parent that is a list": tag("\nbase: [a, b]\n"),
    "a parent that is a folder": tag("\nbase: .\n"),
    "two documents": tag("\n---\nformat: uniaudio2\n"),
}

MODEL_CONFIG: dict[str, Damage] = {
    **{name: NOT_A_CONFIG[name] for name in NOT_A_CONFIG if name != "an unknown key at the end"},
    "another format": at("format", "another"),
    "no format": at("format", ...),
    "version 0": at("version", 0),
    "version 99": at("version", 99),
    "version in words": at("version", "one"),
    "version a list": at("version", [1]),
    "no version": at("version", ...),
    "no codec": at("codec", ...),
    "codec a number": at("codec", 5),
    "codec a list": at("codec", [1]),
    "codec empty": at("codec", {}),
    "lm in words": at("lm", "large"),
    "lm empty": at("lm", {}),
    "unknown key in lm": at("lm.widht", 3),
    "unknown key deep in lm": at("lm.audio.streamz", 3),
    "missing key in lm": at("lm.backbone.num_layers", ...),
    "words for a number": at("lm.backbone.width", "wide"),
    "fraction for a whole number": at("lm.backbone.num_heads", 2.5),
    "truth for a number": at("lm.backbone.num_layers", True),
    "null for a number": at("lm.backbone.width", None),
    "list for a number": at("lm.backbone.width", [64]),
    "negative width": at("lm.backbone.width", -64),
    "width of 0": at("lm.backbone.width", 0),
    "no heads": at("lm.backbone.num_heads", 0),
    "heads that do not divide": at("lm.backbone.num_heads", 7),
    "no key groups": at("lm.backbone.num_kv_groups", 0),
    "widths that differ": at("lm.generation.width", 32),
    "layers without end": at("lm.backbone.num_layers", 10**9),
    "width beyond all memory": at("lm.backbone.mlp_width", 10**13),
    "vocabulary beyond all memory": at("lm.text_vocab_size", 10**12),
    "a number of 5000 digits": tag("\nlm: 1" + "0" * 5000 + "\n"),
    "number with 5000 digits in a key": at("lm.backbone.width", "PLAIN"),
    "vocabulary too small": at("lm.text_vocab_size", 3),
    "special id out of range": at("lm.audio.streams.0.bos", 10**6),
    "codebook over its special ids": at("lm.audio.streams.0.codebook_size", 10**6),
    "negative special id": at("lm.audio.voice_bos", -1),
    "unknown prompt style": at("lm.prompt_style", "sonnet"),
    "dropout above 1": at("lm.dropout", 3),
    "rope of 0": at("lm.rope.base", 0),
    "unknown autoencoder": at("codec.autoencoder.name", "mp3"),
    "autoencoder without a name": at("codec.autoencoder.name", ...),
    "unknown value of the autoencoder": at("codec.autoencoder.config.depth", 3),
    "unknown encoder": at("codec.encoders.radio", {}),
    "encoders a list": at("codec.encoders", ["whisper_expert"]),
    "no encoders": at("codec.encoders", {}),
    "no codebooks": at("codec.reasoning.quantizer.num_codebooks", 0),
    "codebooks without end": at("codec.reasoning.quantizer.num_codebooks", 10**9),
    "negative codebook": at("codec.reconstruction.acoustic.codebook_size", -5),
    "windows that overlap wholly": at("codec.windows", {"overlap_codes": 10**6}),
    "unknown solver": at("codec.sampling.solver", "magic"),
    "sizes of another model": at("codec.reasoning.dim", 32),
    "networks of odd width": at("codec.decoder.config.dit.width", 17),
}
MODEL_CONFIG["number with 5000 digits in a key"] = changed(
    lambda data: data.replace(b"text_vocab_size: ", b"text_vocab_size: 1" + b"0" * 5000)
)

TRAIN_CONFIG: dict[str, Damage] = {
    **NOT_A_CONFIG,
    "steps in words": at("train.steps", "many"),
    "negative steps": at("train.steps", -5),
    "lr a list": at("train.lr", [1e-3]),
    "train a number": at("train", 3),
    "no data": at("data", ...),
}


def json_with(change: Callable[[Any], Any]) -> Damage:
    def damage(path: Path, proof: Path) -> None:
        values = json.loads(path.read_text())
        new = change(values)
        put(path, json.dumps(values if new is None else new))

    return damage


TOKENIZER: dict[str, Damage] = {
    **{name: NOT_THE_FILE[name] for name in ("empty", "folder", "text", "random bytes", "dangling link", "zip bomb")},
    **{f"cut at {share}": cut(share) for share in (0.1, 0.5, 0.99)},
    "an empty mapping": content("{}"),
    "a list": content("[]"),
    "null": content("null"),
    "nested deeply": content("[" * 100_000),
    "no model": json_with(without("model")),
    "a model of an unknown type": json_with(lambda values: values["model"].update(type="Magic")),
    "a vocabulary that is a number": json_with(lambda values: values["model"].update(vocab=5)),
    "an empty vocabulary": json_with(lambda values: values["model"].update(vocab={}, merges=[])),
    "negative ids": json_with(lambda values: values["model"]["vocab"].update(a=-5)),
    "ids that are words": json_with(lambda values: values["model"]["vocab"].update(a="one")),
    "merges of unknown pieces": json_with(lambda values: values["model"].update(merges=[["qqqq", "zzzz"]])),
    "special tokens of words": json_with(lambda values: values.update(added_tokens="none")),
    "more ids than the model": json_with(
        lambda values: values["model"]["vocab"].update({f"word{n}": 2048 + n for n in range(5000)})
    ),
    "a pre-tokenizer that runs nothing": json_with(lambda values: values.update(pre_tokenizer={"type": "Evil"})),
}


# -- codes ------------------------------------------------------------------------------------------------------------

ABOUT = {"format": "uniaudio2-codes", "version": "1", "num_samples": "null"}


def codes_file(about: dict[str, str] | None = None, **streams: torch.Tensor | None) -> Damage:
    """A codes file with other streams or other metadata."""

    def damage(path: Path, proof: Path) -> None:
        values = {name: tensor.long() for name, tensor in load_file(path).items()} | streams
        path.unlink()
        save_file({n: t for n, t in values.items() if t is not None}, path, {**ABOUT, **(about or {})})

    return damage


def ids(*shape: int, value: int = 0, dtype: torch.dtype = torch.int64) -> torch.Tensor:
    return torch.full(shape, value, dtype=dtype)


CODES: dict[str, Damage] = {
    "no reasoning": codes_file(reasoning=None),
    "no reconstruction": codes_file(reconstruction=None),
    "another stream": codes_file(another=ids(1)),
    "code beyond its codebook": codes_file(reconstruction=ids(1, 8, 5, value=32)),
    "reasoning code beyond its codebook": codes_file(reasoning=ids(1, 8, 2, value=10**6)),
    "the largest number": codes_file(reconstruction=ids(1, 8, 5, value=2**63 - 1)),
    "negative codes": codes_file(reconstruction=ids(1, 8, 5, value=-1)),
    "negative 8-bit codes": codes_file(reasoning=ids(1, 8, 2, value=-1, dtype=torch.int8)),
    "floating codes": codes_file(reasoning=torch.zeros(1, 8, 2)),
    "codes that are NaN": codes_file(reasoning=torch.full((1, 8, 2), float("nan"))),
    "true and false": codes_file(reasoning=ids(1, 8, 2).bool()),
    "seven codebooks": codes_file(reconstruction=ids(1, 7, 5)),
    "nine codebooks": codes_file(reconstruction=ids(1, 9, 5)),
    "seven reasoning codebooks": codes_file(reasoning=ids(1, 7, 2)),
    "frames first": codes_file(reconstruction=ids(1, 5, 8)),
    "two axes": codes_file(reconstruction=ids(8, 5)),
    "four axes": codes_file(reconstruction=ids(1, 1, 8, 5)),
    "a single number": codes_file(reconstruction=torch.tensor(5)),
    "no frames": codes_file(reconstruction=ids(1, 8, 0)),
    "no codebooks": codes_file(reconstruction=ids(1, 0, 5)),
    "no clip": codes_file(reasoning=ids(0, 8, 2), reconstruction=ids(0, 8, 5)),
    "two clips": codes_file(reasoning=ids(2, 8, 2), reconstruction=ids(2, 8, 5)),
    "clips that differ": codes_file(reasoning=ids(2, 8, 2)),
    "more samples than codes": codes_file({"num_samples": "10000000"}),
    "negative samples": codes_file({"num_samples": "-1"}),
    "samples in words": codes_file({"num_samples": "many"}),
    "samples in fractions": codes_file({"num_samples": "1.5"}),
    "samples a list": codes_file({"num_samples": "[1]"}),
    "samples nested deeply": codes_file({"num_samples": "[" * 100_000}),
    "samples of 5000 digits": codes_file({"num_samples": "1" * 5000}),
    "another format": codes_file({"format": "something"}),
    "another version": codes_file({"version": "2"}),
    "weights of a model": tensors(lambda values: {"layer.weight": torch.ones(2, 2)}),
}

PAIR: dict[str, Damage] = {
    "gone": gone,
    "a mapping": saved({"codes": ids(8, 3)}),
    "a list of codes": saved([ids(8, 3)]),
    "a number": saved(5),
    "text": saved("codes"),
    "nothing": saved(None),
    "floating codes": saved(torch.zeros(8, 3)),
    "true and false": saved(ids(8, 3).bool()),
    "complex codes": saved(torch.zeros(8, 3, dtype=torch.complex64)),
    "negative codes": saved(ids(8, 3, value=-1)),
    "code beyond its codebook": saved(ids(8, 3, value=10**6)),
    "seven codebooks": saved(ids(7, 3)),
    "one axis": saved(ids(24)),
    "a single number": saved(torch.tensor(3)),
    "two clips": saved(ids(2, 8, 3)),
    "no frames": saved(ids(8, 0)),
    "a view larger than the file": saved(ids(1).expand(8, 10**10)),
    "a tensor without values": saved(torch.zeros(8, 3, dtype=torch.int64, device="meta")),
    "a sparse tensor": saved(ids(8, 3, value=1).to_sparse()),
}


# -- published checkpoints --------------------------------------------------------------------------------------------


def state(change: Callable[[dict[str, torch.Tensor]], Any], key: str = "model") -> Damage:
    """Rewrite the state dict in a published torch file; ``change`` may return all that is to be saved."""

    def damage(path: Path, proof: Path) -> None:
        values = dict(torch.load(path, weights_only=True)[key])
        new = change(values)
        saved({key: values} if new is None else new)(path, proof)

    return damage


def replaced(key: str, change: Callable[[torch.Tensor], Any], where: str = "model") -> Damage:
    return state(lambda values: values.update({key: change(values[key])}), where)


LM_KEYS = [  # that tell sizes
    "audio_head",
    "backbone.transformer.wte.weight",
    "backbone.transformer.h.0.attn.qkv.weight",
    "backbone.transformer.h.0.attn.proj.weight",
    "backbone.transformer.h.0.mlp.fc_1.weight",
    "audio_understanding_expert.transformer.h.0.attn.qkv.weight",
    "decoder.transformer.h.0.attn.proj.weight",
    "projection.weight",
]
RESHAPED: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "a number": lambda tensor: tensor.sum(),
    "flat": lambda tensor: tensor.reshape(-1),
    "empty": lambda tensor: tensor[:0],
    "with an axis more": lambda tensor: tensor.reshape(*tensor.shape[:-1], 2, -1),
    "half": lambda tensor: tensor[..., : tensor.shape[-1] // 2].clone(),
}
LM_FILE: dict[str, Damage] = {
    **{
        f"{key} {name}": replaced(f"module.{key}", change)
        for number, key in enumerate(LM_KEYS)
        for index, (name, change) in enumerate(RESHAPED.items())
        if number < 4 or index % 2 == number % 2
    },
    **{f"without {key}": state(without(f"module.{key}")) for key in LM_KEYS[1:]},
    "no state": saved({"optimizer": {"lr": 1.0}, "epoch": 3}),
    "an empty state": saved({"model": {}}),
    "a state of numbers": saved({"model": {"a": 1, "b": 2.0}}),
    "nested too deeply": saved({"model": {"model": {"model": {"model": {"a": torch.ones(1)}}}}}),
    "a list of tensors": saved([torch.ones(2), torch.ones(3)]),
    "a lone tensor": saved(torch.ones(3)),
    "a number": saved(3.0),
    "names that are numbers": state(lambda values: {"model": {**values, 5: torch.ones(2)}}),
    "weights of another model": saved({"model": {"conv1.weight": torch.ones(3, 3), "fc.bias": torch.ones(2)}}),
    "a key too many": state(lambda values: values.update({"module.another.weight": torch.ones(2)})),
    "one key with and without its prefix": state(lambda values: values.update({"projection.weight": torch.ones(2, 2)})),
    "flattened shards": state(lambda values: values.update({"module._flat_param": torch.ones(9)})),
    "NaN in a weight": replaced("module.projection.weight", set_first(float("nan"))),
    "infinity in a weight": replaced("module.audio_head", set_first(float("-inf"))),
    "a weight of whole numbers": replaced("module.projection.weight", lambda tensor: tensor.long()),
    "a weight of bits": replaced("module.projection.weight", lambda tensor: tensor > 0),
    "a complex weight": replaced("module.projection.weight", lambda tensor: tensor.to(torch.complex64)),
    "a sparse weight": replaced("module.projection.weight", lambda tensor: tensor.to_sparse()),
    "a weight without values": replaced("module.projection.weight", lambda tensor: tensor.to("meta")),
    "a weight larger than the file": replaced("module.projection.weight", lambda t: torch.ones(1).expand(10**6, 10**6)),
    "a weight that is a list": replaced("module.projection.weight", lambda tensor: tensor.tolist()),
}
LLM_CONFIG: dict[str, Damage] = {
    **{
        name: NOT_A_CONFIG[name]
        for name in NOT_A_CONFIG
        if name not in ("an unknown key at the end", "a key twice", "two documents")
    },
    **{f"without {key}": at(key, ...) for key in IDS},
    "gone": gone,
    "a folder": folder,
    "words for a number": at("audio_reason_card", "twenty"),
    "a fraction": at("audio_semantic_card", 40.5),
    "a list": at("reason_bos", [1, 2]),
    "a card that does not fit": at("audio_reason_card", 21),
    "negative ids": at("reason_bos", -5),
    "ids out of range": at("semantic_eos", 10**9),
    "a pad beyond the vocabulary": at("text_pad_token", 10**9),
    "another number of streams": at("parallel_number", 3),
}
SQCODEC: dict[str, Damage] = {
    "no state": saved({"another": 1}),
    "a key missing": state(lambda values: without(next(iter(values)))(values), "codec_model"),
    "a key too many": state(lambda values: values.update(another=torch.ones(1)), "codec_model"),
    "a weight flat": replaced("encoder.0.weight_v", lambda tensor: tensor.reshape(-1), "codec_model"),
    "NaN in a weight": replaced("encoder.0.weight_v", set_first(float("nan")), "codec_model"),
}
SQCODEC_CONFIG: dict[str, Damage] = {
    **{name: NOT_A_CONFIG[name] for name in ("empty", "a list", "no YAML", "a tag that runs code", "nested deeply")},
    **{
        f"without {key}": at(f"generator.config.{key}", ...)
        for key in ("num_bands", "causal", "downsample_factors", "latent_hidden_dim", "init_channel")
    },
    "gone": gone,
    "a folder": folder,
    "words for a number": at("generator.config.init_channel", "wide"),
    "a number for a list": at("generator.config.downsample_factors", 5),
    "a factor of 0": at("generator.config.downsample_factors", [0, 0, 0, 0]),
    "no factors": at("generator.config.downsample_factors", []),
    "negative kernels": at("generator.config.res_kernel_size", -3),
    "sizes of another codec": at("generator.config.latent_hidden_dim", 17),
    "no channels": at("generator.config.init_channel", 0),
    "a width beyond all memory": at("generator.config.init_channel", 10**15),
}
LLAMA_CONFIG: dict[str, Damage] = {
    **{name: NOT_THE_FILE[name] for name in ("empty", "text", "random bytes", "folder")},
    "gone": gone,
    "a list": content("[1, 2]"),
    "nested deeply": content("[" * 100_000),
    **{
        f"without {key}": json_with(without(key))
        for key in ("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    },
    **{
        f"{key} of {value!r}": json_with(lambda values, key=key, value=value: values.update({key: value}))
        for key, value in (
            ("model_type", "gpt2"),
            ("hidden_size", "wide"),
            ("hidden_size", 0),
            ("num_hidden_layers", 3),
            ("num_hidden_layers", 10**9),
            ("num_attention_heads", 0),
            ("num_key_value_heads", 3),
            ("vocab_size", -1),
            ("rope_scaling", "linear"),
            ("rope_scaling", {"rope_type": "llama3"}),
            ("rope_theta", "warm"),
            ("rms_norm_eps", [1]),
            ("head_dim", 10**9),
        )
    },
}
INDEX: dict[str, Damage] = {
    **{name: NOT_THE_FILE[name] for name in ("empty", "text", "random bytes")},
    "an empty mapping": content("{}"),
    "a map that is a number": content('{"weight_map": 3}'),
    "a shard that is a number": content('{"weight_map": {"a": 5}}'),
    "a shard outside the folder": content('{"weight_map": {"a": "../lm.safetensors"}}'),
    "an absolute shard": content('{"weight_map": {"a": "/etc/passwd"}}'),
    "a shard that is gone": content('{"weight_map": {"a": "gone.safetensors"}}'),
    "a tensor that is not there": json_with(lambda v: v["weight_map"].update(zz=next(iter(v["weight_map"].values())))),
    "nested deeply": content("[" * 100_000),
}


# -- all cases --------------------------------------------------------------------------------------------------------


def some(damages: dict[str, Damage], every: int) -> dict[str, Damage]:
    """Every so many of them, where the same reader was tried with all already."""
    return {name: damage for number, (name, damage) in enumerate(damages.items()) if number % every == 0}


LISTS: dict[tuple[str, str], dict[str, Damage]] = {
    ("model", "codec-00001-of-00001.safetensors"): NOT_THE_FILE
    | CUT
    | HEADER_LIES
    | WRONG_WEIGHTS
    | {"pipe": pipe, "gone": gone},
    ("model", "lm.safetensors"): WRONG_WEIGHTS | some(HEADER_LIES, 6) | some(NOT_THE_FILE, 4),
    ("model", "config.yaml"): MODEL_CONFIG,
    ("model", "tokenizer.json"): TOKENIZER,
    ("sharded", "lm.safetensors.index.json"): INDEX,
    ("codes", "a.safetensors"): NOT_THE_FILE | CUT | HEADER_LIES | CODES | {"pipe": pipe},
    ("codes", "a_reason.pt"): NOT_THE_FILE | CUT | PAIR | {"pipe": pipe},
    ("codes", "a_semantic.pt"): some(NOT_THE_FILE, 3) | PAIR,
    ("published lm", "llm_ep3.checkpoint"): NOT_THE_FILE | CUT | LM_FILE | {"pipe": pipe},
    ("published lm", "llm_config.yaml"): LLM_CONFIG,
    ("published codec", "sqcodec.pth"): some(NOT_THE_FILE, 3) | some(CUT, 3) | SQCODEC,
    ("published codec", "sqcodec_config.yaml"): SQCODEC_CONFIG,
    ("llama", "model.safetensors"): some(NOT_THE_FILE, 2) | some(HEADER_LIES, 4) | some(WRONG_WEIGHTS, 3),
    ("llama", "config.json"): LLAMA_CONFIG,
    ("train", "train.yaml"): TRAIN_CONFIG,
}
CASES = [
    Case(setting, file, name, damage) for (setting, file), damages in LISTS.items() for name, damage in damages.items()
]
CUT_IS_NO_DAMAGE = {("codes", "a_reason.pt", "cut at 0.9999")}  # cuts nothing from a file of that few bytes
CASES = [case for case in CASES if (case.setting, case.file, case.name) not in CUT_IS_NO_DAMAGE]


def test_there_are_more_than_200() -> None:
    assert len({case.id for case in CASES}) == len(CASES) >= 200


# -- where they are met -----------------------------------------------------------------------------------------------


@dataclass
class Good:
    """Files that work, made once."""

    root: Path
    loaded: UniAudio2

    def at(self, setting: str) -> Path:
        return self.root / setting.replace(" ", "_")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Good:
    root = tmp_path_factory.mktemp("good")
    model = make_tiny_model(root / "model")
    soundfile.write(model / "a.wav", torch.zeros(4800).numpy(), 24000)
    (root / "codes").mkdir()
    codes = AudioCodes(torch.zeros(1, 8, 2).long(), torch.zeros(1, 8, 5).long())
    for name in ("a.safetensors", "a_reason.pt"):
        codes.save(root / "codes" / name)
    (root / "published_lm").mkdir()
    lm = AudioLM(load_config(LMConfig, preset_path("lm", "tiny"))).initialise(torch.Generator().manual_seed(0))
    weights = {f"module.{published_lm_key(name)}": value for name, value in lm.state_dict().items()}
    torch.save({"model": weights, "epoch": 3}, root / "published_lm" / "llm_ep3.checkpoint")
    (root / "published_lm" / "llm_config.yaml").write_text(yaml.safe_dump(IDS))
    write_codec(root / "published_codec", *published_codec())
    write_llama(root / "llama")
    (root / "train").mkdir()
    shutil.copy(preset_path("train", "lm_1"), root / "train" / "train.yaml")
    return Good(root, UniAudio2.from_pretrained(model, device="cpu"))


def command(setting: str, folder: Path, file: str, out: Path) -> list[str]:
    """The command that reads the damaged file."""
    on_cpu = ["--device", "cpu"]
    if setting in ("model", "sharded"):
        return ["encode", str(folder / "a.wav"), "-o", str(out / "x.safetensors"), "--model", str(folder), *on_cpu]
    if setting == "codes":
        return ["decode", str(folder / file), "-o", str(out / "x.wav"), *on_cpu]
    if setting == "published lm":
        return ["convert", str(folder), str(out), *OVERRIDES]
    if setting == "published codec":
        return ["convert", str(folder / "sqcodec.pth"), str(out)]
    if setting == "llama":
        return ["convert", "llama", str(folder), str(out), "--preset", "tiny"]
    return ["train", "lm_1", "--config", str(folder / file)]


@pytest.fixture
def folder_of(good: Good, tmp_path: Path) -> Callable[[str], Path]:
    """A function that gives a folder of links to the good files of a setting."""

    def make(setting: str) -> Path:
        target = tmp_path / "in"
        source = good.at("model" if setting == "sharded" else setting)
        shutil.copytree(source, target, copy_function=os.link)
        if setting == "sharded":
            shard = (target / "lm.safetensors").rename(target / "lm-00001-of-00001.safetensors")
            names = dict.fromkeys(load_file(shard), shard.name)
            (target / "lm.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
        return target

    return make


@pytest.fixture(autouse=True)
def _one_loaded_model(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Codes are decoded by a model that is loaded already."""
    case = getattr(request.node, "callspec", None)
    if case is not None and getattr(case.params.get("case"), "setting", "") == "codes":
        loaded = request.getfixturevalue("good").loaded
        monkeypatch.setattr(UniAudio2, "from_pretrained", lambda *args, **options: loaded)
    yield


@pytest.mark.parametrize("setting", sorted({case.setting for case in CASES} - {"train"}))
def test_the_undamaged_files_work(
    setting: str, folder_of: Callable[[str], Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = next(case.file for case in CASES if case.setting == setting)
    assert execute(command(setting, folder_of(setting), file, tmp_path / "out")) == 0, capfd.readouterr().err
    capfd.readouterr()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_one_clear_line(
    case: Case, folder_of: Callable[[str], Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder, out, proof = folder_of(case.setting), tmp_path / "out", tmp_path / "proof"
    case.damage(folder / case.file, proof)
    code = execute(command(case.setting, folder, case.file, out))
    printed, told = capfd.readouterr()
    assert code in (1, 2), told
    assert printed == "" and "Traceback" not in told
    errors = [line for line in told.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, told
    assert str(tmp_path) in errors[0], errors[0]  # says where
    assert len(errors[0]) <= LONGEST + 2 * len(str(tmp_path)), errors[0]
    assert not re.search(RAW, errors[0]), errors[0]
    assert not proof.exists()
    assert not out.exists() or not any(out.iterdir())
