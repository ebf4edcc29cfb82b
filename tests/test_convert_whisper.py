"""Whisper's encoder from its three kinds of files, and files that are none."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from uniaudio2.checkpoint import load_encoder
from uniaudio2.cli import execute
from uniaudio2.codec.features import build_encoder
from uniaudio2.codec.whisper import WhisperEncoder
from uniaudio2.errors import UserError
from uniaudio2.published.whisper import convert_whisper

SIZES = {"d_model": 128, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 48}


@pytest.fixture(scope="module")
def encoder() -> WhisperEncoder:
    torch.manual_seed(0)
    return build_encoder("whisper", {**SIZES, "padded": False}).freeze()


def hugging_face(encoder: WhisperEncoder, folder: Path, **config: object) -> Path:
    folder.mkdir()
    tensors = {f"model.{name}": value.clone() for name, value in encoder.state_dict().items()}
    tensors["model.decoder.embed_tokens.weight"] = torch.zeros(4, 4)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({"encoder_attention_heads": 2, **config}))
    return folder


def openai(encoder: WhisperEncoder, path: Path) -> Path:
    pairs = [
        ("layer_norm.", "ln_post."), ("layers.", "blocks."),
        ("self_attn_ln_post", "attn_ln"), ("final_ln_post", "mlp_ln"),
        ("self_attn.q_proj", "attn.query"), ("self_attn.k_proj", "attn.key"), ("self_attn.v_proj", "attn.value"),
        ("self_attn.out_proj", "attn.out"), ("fc1", "mlp.0"), ("fc2", "mlp.2"),
        ("embed_positions.weight", "positional_embedding"),
    ]  # fmt: skip
    state: dict[str, Tensor] = {"decoder.positional_embedding": torch.zeros(4, 4)}
    for name, value in encoder.state_dict().items():
        for ours, theirs in pairs:
            name = name.replace(ours, theirs)
        state[name] = value
    torch.save({"dims": {"n_audio_head": 2, "n_mels": 80}, "model_state_dict": state}, path)
    return path


def ctranslate2(
    encoder: WhisperEncoder,
    folder: Path,
    *,
    spec: str = "WhisperSpec",
    kinds: Mapping[str, tuple[int, str]] | None = None,
) -> Path:
    """Write the encoder as CTranslate2's converter does; ``kinds`` gives other types by a part of the name."""
    folder.mkdir()
    state = {name.removeprefix("encoder."): value.numpy() for name, value in encoder.state_dict().items()}
    tensors: dict[str, np.ndarray] = {
        "encoder/num_heads": np.array(2, np.int16),
        "decoder/embeddings/weight": np.zeros((4, 4)),
    }
    tensors["encoder/position_encodings/encodings"] = state["embed_positions.weight"]
    for conv in ("conv1", "conv2"):
        tensors |= {f"encoder/{conv}/{end}": state[f"{conv}.{end}"] for end in ("weight", "bias")}
    norms = {"encoder/layer_norm": "layer_norm"}
    for i in range(SIZES["encoder_layers"]):
        to, ours = f"encoder/layer_{i}", f"layers.{i}"
        norms |= {f"{to}/self_attention/layer_norm": f"{ours}.self_attn_layer_norm"}
        norms |= {f"{to}/ffn/layer_norm": f"{ours}.final_layer_norm"}
        zero = np.zeros(SIZES["d_model"], np.float32)
        for end in ("weight", "bias"):
            qkv = [state.get(f"{ours}.self_attn.{part}_proj.{end}", zero) for part in "qkv"]
            tensors[f"{to}/self_attention/linear_0/{end}"] = np.concatenate(qkv)
            tensors[f"{to}/self_attention/linear_1/{end}"] = state[f"{ours}.self_attn.out_proj.{end}"]
            tensors[f"{to}/ffn/linear_0/{end}"] = state[f"{ours}.fc1.{end}"]
            tensors[f"{to}/ffn/linear_1/{end}"] = state[f"{ours}.fc2.{end}"]
    for to, ours in norms.items():
        tensors |= {f"{to}/gamma": state[f"{ours}.weight"], f"{to}/beta": state[f"{ours}.bias"]}
    data = struct.pack("<I", 6) + text(spec) + struct.pack("<II", 3, len(tensors))
    for name, value in tensors.items():
        number, kind = (2, "int16") if value.dtype == np.int16 else (0, "float32")
        for part, other in (kinds or {}).items():
            number, kind = other if part in name else (number, kind)
        raw = np.ascontiguousarray(value.astype(kind)).tobytes()
        data += text(name) + struct.pack("<B", value.ndim) + struct.pack(f"<{value.ndim}I", *value.shape)
        data += struct.pack("<BI", number, len(raw)) + raw
    data += struct.pack("<I", 1) + text("decoder/projection/weight") + text("decoder/embeddings/weight")
    (folder / "model.bin").write_bytes(data)
    return folder


def text(name: str) -> bytes:
    return struct.pack("<H", len(name) + 1) + name.encode() + b"\0"


@pytest.mark.parametrize("write", [hugging_face, openai, ctranslate2], ids=lambda write: write.__name__)
@torch.no_grad()
def test_every_kind_of_file_gives_the_same_features(encoder: WhisperEncoder, tmp_path: Path, write) -> None:
    source = write(encoder, tmp_path / "whisper.pt")
    report = convert_whisper(source, tmp_path / "model")
    assert report.problem is None and (tmp_path / "model" / "conversion.json").is_file()
    loaded = load_encoder(tmp_path / "model")
    assert isinstance(loaded, WhisperEncoder) and loaded.config == encoder.config
    audio = 0.1 * torch.randn(1, 1, 9600)
    torch.testing.assert_close(loaded(audio)["speech"], encoder(audio)["speech"])


@torch.no_grad()
def test_eight_bit_rows_are_a_quarter_and_near(encoder: WhisperEncoder, tmp_path: Path) -> None:
    source = ctranslate2(encoder, tmp_path / "whisper")
    sizes = {}
    for dtype in ("float32", "int8"):
        convert_whisper(source, tmp_path / dtype, dtype=dtype)
        sizes[dtype] = (tmp_path / dtype / "encoder.safetensors").stat().st_size
    assert sizes["int8"] < 0.3 * sizes["float32"]
    audio = 0.1 * torch.randn(1, 1, 9600)
    features = load_encoder(tmp_path / "int8")(audio)["speech"]
    expected = encoder(audio)["speech"]
    assert float((features - expected).norm() / expected.norm()) < 0.03


def test_half_precision_files_are_read(encoder: WhisperEncoder, tmp_path: Path) -> None:
    kinds = {"/weight": (4, "float16"), "/bias": (4, "float16"), "/encodings": (4, "float16")}
    convert_whisper(ctranslate2(encoder, tmp_path / "whisper", kinds=kinds), tmp_path / "model")
    weight = load_encoder(tmp_path / "model", dtype=None).state_dict()["encoder.conv1.weight"]
    assert torch.equal(weight.float(), encoder.encoder.conv1.weight.half().float())


def check_refused(source: Path, target: Path, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        convert_whisper(source, target)
    assert "\n" not in str(caught.value)
    assert not target.exists()


def test_damaged_ctranslate2_files_are_refused(encoder: WhisperEncoder, tmp_path: Path) -> None:
    folder = ctranslate2(encoder, tmp_path / "whisper")
    file, target = folder / "model.bin", tmp_path / "model"
    data = file.read_bytes()
    half = len(data) // 2
    file.write_bytes(data[half:] + data[:half])
    check_refused(folder, target, r"model\.bin: damaged CTranslate2 model, .*join all of them in order")
    file.write_bytes(data[:half])
    check_refused(folder, target, "damaged CTranslate2 model, it ends .* bytes too early")
    file.write_bytes(data + b"more")
    check_refused(folder, target, "4 bytes are left over")
    file.write_bytes(b"")
    check_refused(folder, target, "is empty")


def test_other_ctranslate2_models_are_refused(encoder: WhisperEncoder, tmp_path: Path) -> None:
    target = tmp_path / "model"
    check_refused(
        ctranslate2(encoder, tmp_path / "other", spec="TransformerSpec"), target, "kind 'TransformerSpec', not"
    )
    quantised = ctranslate2(encoder, tmp_path / "int8", kinds={"linear_0/weight": (1, "int8")})
    check_refused(quantised, target, "is quantised; take a float16 or float32 conversion")


def test_missing_and_foreign_files_are_refused(encoder: WhisperEncoder, tmp_path: Path) -> None:
    target = tmp_path / "model"
    check_refused(tmp_path / "nowhere", target, "no such file or folder")
    (tmp_path / "empty").mkdir()
    check_refused(tmp_path / "empty", target, "holds no Whisper; a Hugging Face folder has model.safetensors")
    folder = hugging_face(encoder, tmp_path / "whisper", encoder_attention_heads="two")
    check_refused(folder, target, r"config\.json: does not tell encoder_attention_heads")
    (folder / "config.json").unlink()
    check_refused(folder, target, r"config\.json: missing")
    save_file({"linear.weight": torch.zeros(2, 2)}, folder / "model.safetensors")
    (folder / "config.json").write_text('{"encoder_attention_heads": 2}')
    check_refused(folder, target, "is not a Whisper encoder")


def test_incomplete_and_unsafe_files_are_refused(encoder: WhisperEncoder, tmp_path: Path) -> None:
    target = tmp_path / "model"
    path = openai(encoder, tmp_path / "whisper.pt")
    loaded = torch.load(path, weights_only=True)
    del loaded["model_state_dict"]["encoder.blocks.1.mlp.0.bias"]
    torch.save(loaded, path)
    check_refused(path, target, r"1 missing \(encoder\.layers\.1\.fc1\.bias\)")
    torch.save({"dims": {}, "model_state_dict": Path("x")}, path)
    check_refused(path, target, "refused, because reading it would run code")


def test_the_command_says_what_it_wants_and_what_it_did(
    encoder: WhisperEncoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = str(ctranslate2(encoder, tmp_path / "whisper")), str(tmp_path / "model")
    assert execute(["convert", "whisper", source]) != 0
    assert "uniaudio2 convert whisper SOURCE TARGET" in capsys.readouterr().err
    assert execute(["convert", "whisper", source, target, "codec.a=1"]) != 0
    assert "takes no changes" in capsys.readouterr().err
    assert execute(["convert", "whisper", source, target, "--dtype", "int8"]) == 0
    assert "encoder.safetensors" in capsys.readouterr().out
