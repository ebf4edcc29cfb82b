"""Conversion: every spelling of published files, strict reports, Llama folders, and little memory."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from uniaudio2.checkpoint import load_autoencoder, load_codec, load_encoder, load_lm, open_folder
from uniaudio2.config import load_config, preset_path
from uniaudio2.lm.model import AudioLM, LMConfig, published_lm_key
from uniaudio2.published.convert import convert
from uniaudio2.published.llama import convert_llama
from uniaudio2.published.report import ConversionError
from uniaudio2.published.source import clean_key, kind_of, open_source
from uniaudio2.tensors import open_tensors

LAYOUT = Path(__file__).parent / "data" / "published_codec_layout.json.gz"
IDS = {
    "audio_reason_card": 20,
    "audio_semantic_card": 40,
    "reason_bos": 16,
    "reason_eos": 17,
    "reason_pad_token": 18,
    "semantic_bos": 32,
    "semantic_eos": 33,
    "semantic_pad_token": 34,
    "audio_prompt_bos": 35,
    "audio_prompt_eos": 36,
    "text_pad_token": 2,
    "parallel_number": 9,
    "llm_name": "Llama-3.2-3B",
    "local_model": "Llama-3.2-300M",
}
TEXT = "bos eos think_begin think_end answer_begin answer_end transcription_begin transcription_end lyric_begin lyric_end caption_begin caption_end"  # noqa: E501
OVERRIDES = [
    "lm.backbone.head_size=16",
    "lm.backbone.num_kv_groups=2",
    "lm.depth.head_size=16",
    "lm.depth.num_kv_groups=1",
    *(f"lm.text.{name}={number + (number > 1)}" for number, name in enumerate(TEXT.split())),
]


class Evil:
    """Would create a folder if it were unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, (str(self.proof),))


@pytest.fixture(scope="module")
def tiny_lm() -> AudioLM:
    config = load_config(LMConfig, preset_path("lm", "tiny"))
    return AudioLM(config).initialise(torch.Generator().manual_seed(0))


@pytest.fixture
def lm_folder(tmp_path: Path, tiny_lm: AudioLM) -> Path:
    """A folder as published: a pickled training checkpoint and ``llm_config.yaml``."""
    folder = tmp_path / "published"
    folder.mkdir()
    state = {f"module.{published_lm_key(name)}": value for name, value in tiny_lm.state_dict().items()}
    torch.save({"model": state, "optimizer": {"lr": 1.0}, "scheduler": None}, folder / "llm_ep3.checkpoint")
    (folder / "llm_config.yaml").write_text(yaml.safe_dump(IDS))
    return folder


def published_codec(seed: int = 0) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], dict[str, Any]]:
    """Random weights in the published layout of a tiny codec: codec, autoencoder, configs."""
    layout = json.loads(gzip.decompress(LAYOUT.read_bytes()))
    generator = torch.Generator().manual_seed(seed)

    def draw(kind: str) -> dict[str, torch.Tensor]:
        tensors = {}
        for name, (dtype, *shape) in layout[kind].items():
            if dtype == "F32":
                tensors[name] = torch.randn(shape, generator=generator) * 0.1
            else:
                tensors[name] = torch.ones(shape, dtype=torch.bool if dtype == "U8" else torch.int64)
        for name, value in tensors.items():
            if name.endswith("running_var"):
                value.abs_().add_(0.5)
            if "down_conv.activation" in name:
                value.fill_(0.25)
        return tensors

    return draw("codec"), draw("sqcodec"), layout["configs"]


def write_codec(
    folder: Path, codec: dict[str, torch.Tensor], autoencoder: dict[str, torch.Tensor], configs: dict[str, Any]
) -> Path:
    folder.mkdir(exist_ok=True)
    torch.save({"model": codec}, folder / "ReasoningCodec.checkpoint")
    torch.save({"codec_model": autoencoder}, folder / "sqcodec.pth")
    (folder / "sqcodec_config.yaml").write_text(yaml.safe_dump({"generator": {"config": configs["sq"]}}))
    (folder / "model_config.json").write_text(json.dumps(configs["flow"]))
    for name, key in (("whisper-medium", "whisper"), ("wavlm", "wavlm")):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "config.json").write_text(json.dumps(configs[key]))
    return folder


@pytest.fixture
def codec_folder(tmp_path: Path) -> Path:
    pytest.importorskip("transformers", reason="the published encoders need the extra 'published'")
    return write_codec(tmp_path / "published", *published_codec())


# -- keys -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "clean"),
    [
        ("module.a.b", "a.b"),
        ("module.module.a", "module.a"),
        ("a.conv_module.b", "a.conv_module.b"),
        ("module.a.conv_module.layer_norm.weight", "a.conv_module.layer_norm.weight"),
        ("_fsdp_wrapped_module.a._fsdp_wrapped_module.b", "a.b"),
        ("_orig_mod.module.a._checkpoint_wrapped_module.b", "a.b"),
        ("a.my_orig_mod.b", "a.my_orig_mod.b"),
    ],
)
def test_prefixes_are_removed_once_and_never_inside_names(key: str, clean: str) -> None:
    assert clean_key(key) == clean


def test_kinds_are_told_by_their_keys() -> None:
    codec, autoencoder, _ = published_codec()
    assert kind_of(codec) == "codec" and kind_of(autoencoder) == "sqcodec"
    assert kind_of(["a.weight"]) == "other"
    assert kind_of(["model.conformer.layers.0.ffn1.x"]) == "musicfm"


# -- language model ---------------------------------------------------------------------------------------------------


def assert_same_lm(folder: Path, expected: AudioLM) -> None:
    loaded = load_lm(folder)
    for name, value in expected.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def test_lm_folder_and_file(lm_folder: Path, tmp_path: Path, tiny_lm: AudioLM) -> None:
    report = convert(lm_folder, tmp_path / "out", overrides=OVERRIDES)
    assert report.problem is None
    assert report.count("renamed") == len(tiny_lm.state_dict()) and report.count("unused") == 2
    assert_same_lm(tmp_path / "out", tiny_lm)
    loaded = load_lm(tmp_path / "out").config
    assert loaded.audio.fine_shift == 20 and not loaded.audio.shift_voice_ids
    assert json.loads((tmp_path / "out" / "conversion.json").read_text())["missing"] == []
    convert(lm_folder / "llm_ep3.checkpoint", tmp_path / "out2", overrides=OVERRIDES)
    assert_same_lm(tmp_path / "out2", tiny_lm)


@pytest.mark.parametrize("form", ["bare", "fsdp", "safetensors", "sharded", "old pickle"])
def test_spellings_of_the_lm_file(lm_folder: Path, tmp_path: Path, tiny_lm: AudioLM, form: str) -> None:
    source = lm_folder / "llm_ep3.checkpoint"
    state = {published_lm_key(name): value.clone() for name, value in tiny_lm.state_dict().items()}
    if form == "bare":
        torch.save(state, source)
    elif form == "fsdp":
        wrapped = {
            f"_fsdp_wrapped_module.{key.replace('.h.', '.h._fsdp_wrapped_module.')}": v for key, v in state.items()
        }
        torch.save({"model": wrapped}, source)
    elif form == "old pickle":
        torch.save({"model": state}, source, _use_new_zipfile_serialization=False)
    else:
        source.unlink()
        save_file(state, lm_folder / "llm_ep3.safetensors")
    convert(lm_folder, tmp_path / "out", overrides=OVERRIDES)
    if form == "sharded":
        from uniaudio2.tensors import save_tensors

        tensors = open_tensors(tmp_path / "out" / "lm.safetensors")
        save_tensors(tmp_path / "out" / "lm.safetensors", tensors, max_shard_bytes=100_000)
        assert not (tmp_path / "out" / "lm.safetensors").exists()
    assert_same_lm(tmp_path / "out", tiny_lm)


def test_the_last_of_several_lms_counts(lm_folder: Path, tmp_path: Path, tiny_lm: AudioLM) -> None:
    torch.save({"model": {"audio_head": torch.zeros(1), "backbone.transformer.x": torch.zeros(1)}}, lm_folder / "llm_ep2.checkpoint")  # fmt: skip # noqa: E501
    report = convert(lm_folder, tmp_path / "out", overrides=OVERRIDES)
    assert any("left out llm_ep2" in note for note in report.notes)
    assert_same_lm(tmp_path / "out", tiny_lm)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.__delitem__("module.audio_head"), "no published weights|of no published model"),
        (lambda s: s.__delitem__("module.projection.weight"), r"1 missing \(depth\.projection\.weight"),
        (lambda s: s.update(extra=torch.zeros(2)), r"1 not explained \(llm_ep3\.checkpoint: extra\)"),
        (lambda s: s.update({"module.projection.weight": torch.zeros(3, 3)}), "1 of a wrong shape.*projection"),
        (lambda s: s.update({"projection.weight": torch.zeros(3, 3)}), "two keys become 'projection.weight'"),
        (lambda s: s.update({"module._flat_param": torch.zeros(3)}), "flattened FSDP"),
    ],
)
def test_anything_unexplained_is_an_error(lm_folder: Path, tmp_path: Path, change: Callable, message: str) -> None:
    path = lm_folder / "llm_ep3.checkpoint"
    loaded = torch.load(path, weights_only=True)
    change(loaded["model"])
    torch.save(loaded, path)
    with pytest.raises(ConversionError, match=message) as caught:
        convert(lm_folder, tmp_path / "out", overrides=OVERRIDES)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_what_only_the_config_tells_has_no_default(lm_folder: Path, tmp_path: Path) -> None:
    config = lm_folder / "llm_config.yaml"
    values = yaml.safe_load(config.read_text())
    for key in ("reason_eos", "audio_semantic_card", "text_pad_token", "local_model"):
        config.write_text(yaml.safe_dump({k: v for k, v in values.items() if k != key}))
        with pytest.raises(ConversionError, match=f"does not tell {key}"):
            convert(lm_folder, tmp_path / "out", overrides=OVERRIDES)
    config.write_text(yaml.safe_dump({**values, "audio_reason_card": 21}))
    with pytest.raises(ConversionError, match="but the weights have 60 audio ids"):
        convert(lm_folder, tmp_path / "out", overrides=OVERRIDES)
    config.write_text(yaml.safe_dump({**values, "llm_name": "Qwen"}))
    with pytest.raises(ConversionError, match=r"head size is not known.*lm\.backbone\.head_size"):
        convert(lm_folder, tmp_path / "out")
    config.write_text(yaml.safe_dump(values))
    with pytest.raises(ConversionError, match="not .* heads of 128"):
        convert(lm_folder, tmp_path / "out")
    config.unlink()
    with pytest.raises(ConversionError, match=r"llm_config\.yaml: missing.*audio_reason_card"):
        convert(lm_folder, tmp_path / "out", overrides=OVERRIDES)


def test_int8_and_bf16(lm_folder: Path, tmp_path: Path, tiny_lm: AudioLM) -> None:
    sizes = {}
    for dtype, tolerance in (("float32", 0.0), ("bf16", 0.005), ("int8", 0.01)):
        convert(lm_folder, tmp_path / dtype, dtype=dtype, overrides=OVERRIDES)
        loaded = load_lm(tmp_path / dtype, dtype=torch.float32).state_dict()
        for name, value in tiny_lm.state_dict().items():
            assert (loaded[name] - value).abs().max() <= tolerance * value.abs().max(), name
        sizes[dtype] = (tmp_path / dtype / "lm.safetensors").stat().st_size
    assert sizes["int8"] < 0.6 * sizes["bf16"] < 0.36 * sizes["float32"]


# -- safety -----------------------------------------------------------------------------------------------------------


def test_pickles_that_would_run_code_are_refused_everywhere(lm_folder: Path, tmp_path: Path, tiny_lm: AudioLM) -> None:
    proof = tmp_path / "proof"
    state = {published_lm_key(name): value for name, value in tiny_lm.state_dict().items()}
    path = lm_folder / "llm_ep3.checkpoint"
    for value in (Evil(proof), {"model": state, "reporter": Evil(proof)}, {"model": {**state, "x": Evil(proof)}}):
        torch.save(value, path)
        for source in (lm_folder, path):
            with pytest.raises(ConversionError, match=r"llm_ep3\.checkpoint: refused.*run code.*state dict again"):
                convert(source, tmp_path / "out", overrides=OVERRIDES)
        with pytest.raises(ValueError, match="refused"):
            open_source(path)
    llama = write_llama(tmp_path / "llama")
    torch.save({"a": Evil(proof)}, llama / "model.safetensors")
    with pytest.raises(ConversionError, match="PyTorch"):
        convert_llama(llama, tmp_path / "out", preset="tiny")
    assert not proof.exists() and not (tmp_path / "out").exists()


def test_malformed_files_give_one_clear_line(lm_folder: Path, tmp_path: Path) -> None:
    path = lm_folder / "llm_ep3.checkpoint"
    good = path.read_bytes()
    contents = [b"", b"text", bytes(100), good[:-1], *(good[:n] for n in range(1, len(good), len(good) // 30))]
    for offset in range(0, 600, 13):
        contents.append(good[:offset] + bytes([good[offset] ^ 0x55]) + good[offset + 1 :])
    refused = 0
    for content in contents:
        path.write_bytes(content)
        try:
            convert(lm_folder, tmp_path / "out", overrides=OVERRIDES)
        except ConversionError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused >= len(contents) - 50  # a flipped bit may fall into padding or be part of a weight
    for source, message in ((tmp_path / "absent", "no such file"), (tmp_path / "empty", "no published weights")):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(ConversionError, match=message):
            convert(source, tmp_path / "out")


# -- codec ------------------------------------------------------------------------------------------------------------


def test_codec_folder(codec_folder: Path, tmp_path: Path) -> None:
    report = convert(codec_folder, tmp_path / "out")
    assert report.problem is None
    codec = load_codec(tmp_path / "out")
    audio = torch.randn(1, 1, 9600, generator=torch.Generator().manual_seed(0)) * 0.1
    codes = codec.encode(audio)
    assert codes.reasoning.shape == (1, 8, 2) and codes.reconstruction.shape == (1, 8, 5)
    whole = codec.decode(codes, steps=1, generator=torch.Generator().manual_seed(0))
    assert whole.shape == audio.shape and bool(torch.isfinite(whole).all())


def respell_weight_norm(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    old, new = ("weight_g", "weight_v"), ("parametrizations.weight.original0", "parametrizations.weight.original1")
    swapped = {}
    for name, value in state.items():
        for a, b in zip(old, new, strict=True):
            if name.endswith(a):
                name = name.removesuffix(a) + b
                break
            if name.endswith(b):
                name = name.removesuffix(b) + a
                break
        swapped[name] = value
    assert set(swapped) != set(state)
    return swapped


def same_state(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    one, two = first.state_dict(), second.state_dict()
    return set(one) == set(two) and all(torch.equal(one[name], two[name]) for name in one)


def test_codec_spellings_give_the_same_model(codec_folder: Path, tmp_path: Path) -> None:
    convert(codec_folder, tmp_path / "out")
    reference = load_codec(tmp_path / "out")
    codec, autoencoder, configs = published_codec()
    leftovers = {"audio_thinking.llm.layers.0.weight": torch.zeros(3)}
    state = {f"module.{key}": value for key, value in (respell_weight_norm(codec) | leftovers).items()}
    write_codec(tmp_path / "b", state, respell_weight_norm(autoencoder), configs)
    report = convert(tmp_path / "b", tmp_path / "out_b")
    assert any("language model of the codec's training" in record.why for record in report.records)
    assert same_state(reference, load_codec(tmp_path / "out_b"))
    # encoders in their own files
    inside = {key: value for key, value in codec.items() if not key.startswith(("whisper_", "wavlm_e", "pretrained_"))}
    folder = write_codec(tmp_path / "c", inside, autoencoder, configs)
    pick = {
        "whisper-medium/model.safetensors": ("whisper_encoder.", "model.encoder."),
        "wavlm/model.safetensors": ("wavlm_encoder.", "wavlm."),
    }
    for file, (theirs, own) in pick.items():
        part = {own + key.removeprefix(theirs): v for key, v in codec.items() if key.startswith(theirs)}
        part |= {"model.decoder.x": torch.zeros(2)} if "whisper" in file else {"lm_head.x": torch.zeros(2)}
        save_file(part, folder / file)
    music = {
        key.removeprefix("pretrained_model.model."): v for key, v in codec.items() if key.startswith("pretrained_")
    }
    torch.save({"model": music, "cfg": None}, folder / "music_ssl.pt")
    convert(folder, tmp_path / "out_c")
    assert same_state(reference, load_codec(tmp_path / "out_c"))
    convert(folder / "music_ssl.pt", tmp_path / "music")
    encoder = load_encoder(tmp_path / "music")
    assert same_state(encoder, reference.encoders["musicfm"])
    convert(folder / "sqcodec.pth", tmp_path / "sq")
    assert same_state(load_autoencoder(tmp_path / "sq"), reference.autoencoder)
    (folder / "music_ssl.pt").unlink()
    with pytest.raises(ConversionError, match=r"does not hold the encoder 'pretrained_model.*music_ssl\.pt"):
        convert(folder, tmp_path / "out_d")


def test_codec_errors(codec_folder: Path, tmp_path: Path) -> None:
    codec, autoencoder, configs = published_codec()
    cases: list[tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], str]] = [
        ({k: v for k, v in codec.items() if k != "cond_feature_emb.bias"}, autoencoder, "1 missing"),
        (codec | {"strange.weight": torch.zeros(2)}, autoencoder, "1 not explained"),
        (codec | {"cond_feature_emb.bias": torch.zeros(3)}, autoencoder, "1 of a wrong shape"),
        ({**codec, "vq_acoustic.layers.0._codebook.initted": torch.tensor(False)}, autoencoder, "never initialised"),
        (codec, {k: v for k, v in autoencoder.items() if k != "encoder.0.weight_g"}, "weight norm is missing"),
        (codec, autoencoder | {"encoder.3.down_conv.activation.weight": torch.ones(1)}, "another value"),
    ]
    for number, (state, sq, message) in enumerate(cases):
        folder = write_codec(tmp_path / f"case{number}", state, sq, configs)
        with pytest.raises(ConversionError, match=message):
            convert(folder, tmp_path / "out")
        assert not (tmp_path / "out" / "config.yaml").exists()
    (codec_folder / "sqcodec_config.yaml").write_text(yaml.safe_dump({"generator": {"config": {"causal": True}}}))
    with pytest.raises(ConversionError, match="does not tell num_bands"):
        convert(codec_folder, tmp_path / "out")
    (codec_folder / "sqcodec_config.yaml").unlink()
    with pytest.raises(ConversionError, match=r"sqcodec_config\.yaml: missing.*init_channel"):
        convert(codec_folder, tmp_path / "out")
    (codec_folder / "sqcodec.pth").unlink()
    with pytest.raises(ConversionError, match=r"sqcodec\.pth: missing"):
        convert(codec_folder, tmp_path / "out")


def test_reference_codec_gives_the_reference_codes(shared: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    fixture = shared / "reference" / "fixtures" / "codec_pipeline.safetensors"
    if not fixture.is_file():
        pytest.skip(f"needs {fixture.name}")
    stored = load_file(fixture)
    configs = json.loads(fixture.with_suffix(".json").read_text())["config"]
    codec = {k.removeprefix("weights/codec."): v for k, v in stored.items() if k.startswith("weights/codec.")}
    codec = {key: value.bool() if value.dtype == torch.uint8 else value for key, value in codec.items()}
    autoencoder = {k.removeprefix("weights/sq."): v for k, v in stored.items() if k.startswith("weights/sq.")}
    convert(write_codec(tmp_path / "published", codec, autoencoder, configs), tmp_path / "out")
    codes = load_codec(tmp_path / "out").encode(stored["wav"][:, None])
    assert (codes.reasoning == stored["encode_segment/reason"]).float().mean() >= 0.98
    assert (codes.reconstruction == stored["encode_segment/rec"]).float().mean() >= 0.98


# -- Llama ------------------------------------------------------------------------------------------------------------

LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "vocab_size": 300,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "head_dim": 16,
    "max_position_embeddings": 1024,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 256,
    },
}


def write_llama(folder: Path, *, tied: bool = False, shards: bool = False) -> Path:
    from uniaudio2.tensors import save_tensors

    folder.mkdir(exist_ok=True)
    generator = torch.Generator().manual_seed(3)
    size, kv, mlp = 64, 32, 96
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (300, size), "model.norm.weight": (size,)}
    for layer in range(2):
        block = f"model.layers.{layer}."
        shapes |= {f"{block}{name}_layernorm.weight": (size,) for name in ("input", "post_attention")}
        shapes |= {f"{block}self_attn.{n}_proj.weight": (r, size) for n, r in (("q", size), ("k", kv), ("v", kv), ("o", size))}  # fmt: skip # noqa: E501
        shapes |= {f"{block}mlp.{name}_proj.weight": (mlp, size) for name in ("gate", "up")}
        shapes[f"{block}mlp.down_proj.weight"] = (size, mlp)
    if not tied:
        shapes["lm_head.weight"] = (300, size)
    tensors = {name: torch.randn(shape, generator=generator) * 0.1 for name, shape in shapes.items()}
    save_tensors(folder / "model.safetensors", tensors, max_shard_bytes=40_000 if shards else 10**9)
    (folder / "config.json").write_text(json.dumps({**LLAMA, "tie_word_embeddings": tied}))
    return folder


@pytest.mark.parametrize("tied", [True, False])
def test_llama_parity_with_transformers(tmp_path: Path, tied: bool) -> None:
    transformers = pytest.importorskip("transformers")
    source = write_llama(tmp_path / "llama", tied=tied, shards=tied)
    report = convert_llama(source, tmp_path / "out", preset="tiny")
    assert report.problem is None
    lm = load_lm(tmp_path / "out")
    theirs = transformers.LlamaForCausalLM.from_pretrained(source).eval()
    ids = torch.randint(0, 300, (2, 400), generator=torch.Generator().manual_seed(0))
    tokens = torch.zeros(2, 400, 9, dtype=torch.long)
    tokens[..., -1] = ids
    mask = torch.zeros_like(tokens, dtype=torch.bool)
    mask[..., -1] = True
    with torch.no_grad():
        ours = lm.forward_text(tokens, mask)
        expected = theirs(ids).logits
    assert ours.shape[-1] == 313  # 13 special tokens behind the vocabulary
    assert torch.allclose(ours[..., :300], expected, atol=2e-4), (ours[..., :300] - expected).abs().max()


def test_llama_options_and_errors(tmp_path: Path) -> None:
    source = write_llama(tmp_path / "llama")
    for seed, name in ((0, "a"), (0, "b"), (1, "c")):
        convert_llama(source, tmp_path / name, preset="tiny", seed=seed, dtype="float32")
    a, b, c = (load_lm(tmp_path / name) for name in "abc")
    assert same_state(a, b) and not same_state(a, c)
    assert torch.equal(a.backbone.layers[0].mlp.gate.weight, c.backbone.layers[0].mlp.gate.weight)
    assert len(a.understanding.layers) == 1 and a.config.rope.factor == 8.0
    with pytest.raises(ConversionError, match="no lm preset 'huge'"):
        convert_llama(source, tmp_path / "out", preset="huge")
    (source / "config.json").write_text(json.dumps({**LLAMA, "num_hidden_layers": 3}))
    with pytest.raises(ConversionError, match=r"missing.*layers\.2"):
        convert_llama(source, tmp_path / "out", preset="tiny")
    (source / "config.json").write_text(json.dumps({**LLAMA, "num_hidden_layers": 1}))
    with pytest.raises(ConversionError, match=r"not explained.*layers\.1"):
        convert_llama(source, tmp_path / "out", preset="tiny")
    (source / "config.json").write_text(json.dumps({**LLAMA, "model_type": "gpt2"}))
    with pytest.raises(ConversionError, match="not 'llama'"):
        convert_llama(source, tmp_path / "out", preset="tiny")
    with pytest.raises(ConversionError, match=r"config\.json: missing"):
        convert_llama(tmp_path / "absent", tmp_path / "out", preset="tiny")


def test_converted_folder_is_a_model_folder(lm_folder: Path, tmp_path: Path) -> None:
    convert(lm_folder, tmp_path / "out", overrides=OVERRIDES)
    folder = open_folder(tmp_path / "out")
    assert folder.has("lm") and not folder.has("codec")
    with pytest.raises(ValueError, match=r"tokenizer\.json"):
        _ = folder.tokenizer
