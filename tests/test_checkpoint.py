"""Model folders: what is saved comes back, strictly, in every type, and errors say what to do."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.test_configs import OVERRIDES
from uniaudio2.checkpoint import (
    PARTS,
    load_codec,
    load_lm,
    load_pretrained,
    load_text_decoder,
    save_parts,
    save_pretrained,
)
from uniaudio2.codec.codec import CodecConfig, ReasoningCodec
from uniaudio2.codec.text_decoder import TextDecoder, TextDecoderConfig
from uniaudio2.config import load_config, preset_path
from uniaudio2.errors import CheckpointError
from uniaudio2.lm.model import AudioLM, LMConfig
from uniaudio2.storage.folder import DEFAULT_FOLDER, open_folder
from uniaudio2.storage.load import build_empty, check_keys, load_weights
from uniaudio2.storage.pack import pack_weights, quantize_rows
from uniaudio2.tensors import open_tensors, save_tensors


@pytest.fixture(scope="module")
def codec() -> ReasoningCodec:
    torch.manual_seed(0)
    return ReasoningCodec(load_config(CodecConfig, preset_path("codec", "tiny"))).eval()


@pytest.fixture(scope="module")
def lm() -> AudioLM:
    config = load_config(LMConfig, preset_path("lm", "tiny"))
    return AudioLM(config).initialise(torch.Generator().manual_seed(0)).eval()


@pytest.fixture(scope="module")
def decoder() -> TextDecoder:
    torch.manual_seed(0)
    return TextDecoder(TextDecoderConfig(50, 1, 2, condition_dim=16, width=16, num_heads=2)).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, codec: ReasoningCodec, lm: AudioLM, decoder: TextDecoder) -> Path:
    from uniaudio2.tokenizer import TextTokenizer

    tokenizer = TextTokenizer.train(["hello world"], lm.config.text_vocab_size)
    path = tmp_path_factory.mktemp("model") / "deep" / "folder"
    return save_parts(path, codec=codec, lm=lm, text_decoder=decoder, tokenizer=tokenizer, card="# A card\n")


def assert_equal(first: nn.Module, second: nn.Module) -> None:
    one, two = first.state_dict(), second.state_dict()
    assert set(one) == set(two)
    for name in one:
        assert one[name].dtype == two[name].dtype and torch.equal(one[name], two[name]), name


def test_everything_comes_back(folder: Path, codec: ReasoningCodec, lm: AudioLM, decoder: TextDecoder) -> None:
    loaded = load_pretrained(folder)
    assert loaded.text_decoder is not None and loaded.tokenizer == folder / "tokenizer.json"
    for ours, theirs in ((loaded.codec, codec), (loaded.lm, lm), (loaded.text_decoder, decoder)):
        assert_equal(ours, theirs)
        assert not ours.training and ours.config == theirs.config  # type: ignore[union-attr]
    files = {"MODEL_CARD.md", "config.yaml", "lm.safetensors", "text_decoder.safetensors"}
    files |= {
        f"codec{end}" for end in (".safetensors.index.json", "-00001-of-00001.safetensors", "-whisper.safetensors")
    }
    assert {path.name for path in folder.iterdir()} == files | {"tokenizer.json"}


def test_loaded_model_computes_the_same(folder: Path, codec: ReasoningCodec, lm: AudioLM) -> None:
    """Tables that are not saved (rotary angles, mel filters) come out of the constructor with their values."""
    audio = torch.randn(1, 1, 9600, generator=torch.Generator().manual_seed(1)) * 0.1
    loaded = load_codec(folder)
    ours, theirs = loaded.encode(audio), codec.encode(audio)
    assert torch.equal(ours.reasoning, theirs.reasoning) and torch.equal(ours.reconstruction, theirs.reconstruction)
    one, two = (m.decode(theirs, generator=torch.Generator().manual_seed(0)) for m in (loaded, codec))
    assert torch.equal(one, two)
    tokens = torch.randint(0, 16, (1, 12, 9), generator=torch.Generator().manual_seed(2))
    mask = torch.zeros_like(tokens, dtype=torch.bool)
    mask[:, :6, -1] = True
    mask[:, 6:, :-1] = True
    assert torch.equal(load_lm(folder).forward_text(tokens, mask), lm.forward_text(tokens, mask))


def test_loading_draws_no_random_numbers(folder: Path) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    load_lm(folder)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
@pytest.mark.parametrize("part", ["lm", "codec"])
def test_an_empty_model_of_published_size_takes_next_to_no_memory(part: str) -> None:
    """Parameters are reserved only, also those of transformers' classes: 19 GB and 7 GB if they were filled."""
    if part == "codec":
        pytest.importorskip("transformers", reason="the published encoders need the extra 'published'")

    def private_mib() -> float:
        status = Path("/proc/self/status").read_text()
        return int(status.split("RssAnon:")[1].split()[0]) / 1024

    config_class, model_class = (PARTS[part].config_class, PARTS[part].model_class)
    preset = {"lm": "3b", "codec": "published"}[part]
    config = load_config(config_class, preset_path(part, preset), OVERRIDES.get((part, preset), ()))
    before = private_mib()
    model = build_empty(lambda: model_class(config))
    assert sum(parameter.nbytes for parameter in model.parameters()) > 6e9
    assert private_mib() - before < 500


def test_loaded_weights_train_without_touching_the_file(folder: Path, lm: AudioLM) -> None:
    loaded = load_lm(folder)
    with torch.no_grad():
        for parameter in loaded.parameters():
            assert parameter.requires_grad
            parameter.add_(1.0)
    assert_equal(load_lm(folder), lm)


@pytest.mark.parametrize(("dtype", "tolerance"), [("bf16", 2**-8), ("int8", 0.51 / 127 + 2**-10)])
def test_smaller_types(tmp_path: Path, codec: ReasoningCodec, lm: AudioLM, dtype: str, tolerance: float) -> None:
    for model, load in ((codec, load_codec), (lm, load_lm)):
        save_pretrained(model, tmp_path, dtype=dtype)  # type: ignore[arg-type]
        loaded = load(tmp_path, dtype=torch.float32)
        parameters = dict(model.named_parameters())
        for name, value in loaded.state_dict().items():
            expected = model.state_dict()[name]
            if name in parameters:
                assert (value - expected).abs().max() <= tolerance * expected.abs().max(), name
            else:
                assert torch.equal(value, expected), name  # codebooks must not move
    stored = {name: tensor.dtype for name, tensor in open_tensors(tmp_path / "lm.safetensors").items()}
    assert (torch.int8 in stored.values()) == (dtype == "int8")
    kept = {p.dtype for p in load_lm(tmp_path).parameters()}
    assert kept == ({torch.bfloat16} if dtype == "bf16" else {torch.float32})
    with pytest.raises(CheckpointError, match="allowed: float32, bf16, int8"):
        save_pretrained(lm, tmp_path, dtype="fp4")  # type: ignore[arg-type]


def test_int8_error_is_half_a_step_of_each_row() -> None:
    weight = torch.randn(64, 300, generator=torch.Generator().manual_seed(0)) * torch.logspace(-9, 4, 64)[:, None]
    weight[5] = 0
    values, scale = quantize_rows(weight)
    assert values.dtype == torch.int8 and scale.shape == (64, 1) and scale.dtype == torch.float16
    error = (values.float() * scale.float() - weight).abs()
    assert bool((error <= 0.501 * scale.float() + 1e-8).all())
    with pytest.raises(CheckpointError, match="not finite"):
        quantize_rows(torch.tensor([[1.0, float("nan")]]))


def test_int8_scales_follow_the_axis_that_loses_less() -> None:
    module = nn.Module()
    columns = torch.logspace(-3, 3, 32)
    module.heads = nn.Parameter(torch.randn(4, 32, 32, generator=torch.Generator().manual_seed(0)) * columns)
    packed = pack_weights(module, "int8")
    assert packed["heads.scale"].shape == (4, 1, 32)
    module.heads.data = module.heads.data.transpose(1, 2).contiguous()
    assert pack_weights(module, "int8")["heads.scale"].shape == (4, 32, 1)


def test_parts_are_merged_into_a_folder(tmp_path: Path, codec: ReasoningCodec, lm: AudioLM) -> None:
    save_pretrained(lm, tmp_path)
    with pytest.raises(CheckpointError, match="has no 'codec' section; it holds lm"):
        load_codec(tmp_path)
    save_pretrained(codec, tmp_path)
    assert_equal(load_lm(tmp_path), lm)
    assert_equal(load_codec(tmp_path), codec)
    with pytest.raises(CheckpointError, match=r"has no tokenizer\.json"):
        _ = open_folder(tmp_path).tokenizer
    with pytest.raises(CheckpointError, match="cannot save a Linear"):
        save_pretrained(nn.Linear(2, 2), tmp_path)


def test_a_finished_encoder_keeps_a_file_of_its_own_that_never_changes(tmp_path: Path, codec: ReasoningCodec) -> None:
    first = save_parts(tmp_path / "first", codec=codec, dtype="int8")
    loaded = load_codec(first)
    with torch.no_grad():
        next(iter(loaded.reasoning.parameters())).add_(1.0)  # pyright: ignore[reportAttributeAccessIssue]
    second = save_parts(tmp_path / "second", codec=loaded, dtype="int8")
    files = [folder / "codec-whisper.safetensors" for folder in (first, second)]
    assert files[0].read_bytes() == files[1].read_bytes()
    names = set(open_tensors(files[0]))
    assert names and all(".whisper." in name for name in names)
    assert not names & set(open_tensors(first / "codec-00001-of-00001.safetensors"))


def test_a_whole_model_object_is_saved(tmp_path: Path, codec: ReasoningCodec, lm: AudioLM, folder: Path) -> None:
    class Whole:
        pass

    whole = Whole()
    whole.codec, whole.lm, whole.tokenizer = codec, lm, folder / "tokenizer.json"  # type: ignore[attr-defined]
    save_pretrained(whole, tmp_path)
    assert_equal(load_pretrained(tmp_path).lm, lm)


def copy_of(folder: Path, target: Path) -> Path:
    target.mkdir()
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "config.yaml").unlink(), "not a model folder .*uniaudio2 convert"),
        (lambda f: (f / "config.yaml").write_text("format: other\nversion: 1\n"), "not a uniaudio2 model folder"),
        (lambda f: (f / "config.yaml").write_text("format: uniaudio2\nversion: 99\n"), "update uniaudio2"),
        (lambda f: (f / "config.yaml").write_text("format: uniaudio2\nversion: one\n"), "is not known"),
        (lambda f: (f / "config.yaml").write_text("{"), "not readable as YAML"),
        (lambda f: (f / "config.yaml").write_text("format: uniaudio2\nversion: 1\nlm: 3\n"), "must be a mapping"),
        (lambda f: (f / "config.yaml").write_bytes(b"\x80\x04"), "text file|YAML"),
        (lambda f: (f / "lm.safetensors").unlink(), r"lm\.safetensors: no such file"),
        (lambda f: (f / "lm.safetensors").write_bytes(b""), "is empty"),
        (lambda f: (f / "lm.safetensors").write_text("words"), "damaged or not safetensors"),
    ],
)
def test_broken_folders(folder: Path, tmp_path: Path, change: object, message: str) -> None:
    broken = copy_of(folder, tmp_path / "broken")
    change(broken)  # type: ignore[operator]
    with pytest.raises(CheckpointError, match=message) as caught:
        load_lm(broken)
    assert "\n" not in str(caught.value) and str(broken) in str(caught.value)


def test_missing_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match="no such folder; give a model folder"):
        open_folder(tmp_path / "absent")
    (tmp_path / "file").write_text("x")
    with pytest.raises(CheckpointError, match="is a file"):
        open_folder(tmp_path / "file")
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match=r"pip install 'uniaudio2\[published\]'"):
        open_folder("owner/name-that-is-not-here")


def test_wrong_keys_are_named(folder: Path, tmp_path: Path, lm: AudioLM) -> None:
    broken = copy_of(folder, tmp_path / "broken")
    path = broken / "lm.safetensors"
    tensors = {name: tensor.read().clone() for name, tensor in open_tensors(path).items()}
    name = "depth.projection.weight"
    shape = list(tensors[name].shape)
    for changed, message in (
        ({k: v for k, v in tensors.items() if k != name}, rf"1 missing \({name}\)"),
        (tensors | {"stray": torch.zeros(1)}, r"1 unexpected \(stray\)"),
        (tensors | {name: torch.zeros(3, 3)}, rf"1 of a wrong shape \({name} is \[3, 3\], needs \[{shape[0]}"),
    ):
        save_tensors(path, changed)
        with pytest.raises(CheckpointError, match=message):
            load_lm(broken)
    model = build_empty(lambda: AudioLM(lm.config))
    with pytest.raises(CheckpointError, match="does not fit its config"):
        load_weights(model, path)


def test_wrong_values_in_the_config_are_named(folder: Path, tmp_path: Path) -> None:
    broken = copy_of(folder, tmp_path / "broken")
    text = (broken / "config.yaml").read_text()
    for old, new, message in (
        ("max_positions:", "max_position:", r"config\.yaml: lm: unknown key 'max_position'; did you mean"),
        ("text_vocab_size: ", "text_vocab_size: x", "needs a whole number"),
    ):
        (broken / "config.yaml").write_text(text.replace(old, new))
        with pytest.raises(CheckpointError, match=message):
            load_lm(broken)


def test_scales_that_do_not_fit_are_refused(tmp_path: Path, lm: AudioLM) -> None:
    save_pretrained(lm, tmp_path, dtype="int8")
    path = tmp_path / "lm.safetensors"
    tensors = {name: tensor.read().clone() for name, tensor in open_tensors(path).items()}
    name = next(name for name in tensors if name.endswith(".scale"))
    save_tensors(path, tensors | {name: torch.ones(3, dtype=torch.float16)})
    with pytest.raises(CheckpointError, match="has a scale of shape"):
        load_lm(tmp_path)


class Evil:
    """Would create a folder if it were unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, (str(self.proof),))


def test_pickles_in_place_of_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    for part, load in (("codec", load_codec), ("lm", load_lm), ("text_decoder", load_text_decoder)):
        broken = copy_of(folder, tmp_path / part)
        torch.save(Evil(proof), broken / f"{part}.safetensors")
        with pytest.raises(CheckpointError, match="PyTorch .*file, not safetensors"):
            load(broken)
        (broken / f"{part}.safetensors").write_bytes(pickle.dumps(Evil(proof)))
        with pytest.raises(CheckpointError):
            load(broken)
    assert not proof.exists()


def test_check_keys_is_silent_when_all_fits() -> None:
    check_keys({"a": (1, 2)}, {"a": (1, 2)}, name="x")


@pytest.mark.skipif(not (DEFAULT_FOLDER / "config.yaml").is_file(), reason="no shipped model in this tree yet")
def test_the_shipped_model_loads_and_is_small() -> None:
    assert sum(file.stat().st_size for file in DEFAULT_FOLDER.rglob("*") if file.is_file()) <= 48_000_000
    loaded = load_pretrained()
    assert loaded.tokenizer.is_file()
    assert (DEFAULT_FOLDER / "MODEL_CARD.md").is_file()
