import copy
import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from uniaudio2.codec import CodecConfig, ReasoningCodec
from uniaudio2.codec.codec import SamplingDefaults, WindowConfig, window_starts
from uniaudio2.codes import LATENT_HOP, RECONSTRUCTION_HOP, UNIT, AudioCodes, reasoning_length, reconstruction_length
from uniaudio2.config import load_config, preset_path, to_plain

TINY = load_config(CodecConfig, preset_path("codec", "tiny"))
WINDOWS = WindowConfig(encode_units=3, decode_codes=20, overlap_codes=6, context_latents=4)


@pytest.fixture(scope="module")
def shared_codec() -> ReasoningCodec:
    torch.manual_seed(0)
    codec = ReasoningCodec(dataclasses.replace(TINY, windows=WINDOWS))
    for parameter in codec.decoder.dit.parameters():  # its gates start at zero: nothing would matter
        torch.nn.init.normal_(parameter, std=0.3)
    return codec


@pytest.fixture
def codec(shared_codec: ReasoningCodec) -> ReasoningCodec:
    shared_codec.config = dataclasses.replace(shared_codec.config, windows=WINDOWS)
    return shared_codec.eval()


def noise(num_samples: int, batch: int = 1, seed: int = 0) -> Tensor:
    return 0.2 * torch.randn(batch, 1, num_samples, generator=torch.Generator().manual_seed(seed))


def draw_codes(frames: int, batch: int = 1, num_samples: int | None = None) -> AudioCodes:
    generator = torch.Generator().manual_seed(frames)
    reconstruction = torch.randint(48, (batch, 8, frames), generator=generator)
    reasoning = torch.randint(32, (batch, 8, -(-frames * 2 // 5)), generator=generator)
    return AudioCodes(reasoning, reconstruction, num_samples)


def test_codes_depend_on_the_encoding_state_alone(codec: ReasoningCodec) -> None:
    changed = copy.deepcopy(codec)
    kept = changed.encoding_state()
    with torch.no_grad():
        for name, tensor in changed.state_dict().items():
            if name not in kept and tensor.is_floating_point():
                tensor.add_(1.0)
    audio = noise(9600)
    ours, theirs = codec.encode(audio), changed.encode(audio)
    assert torch.equal(ours.reasoning, theirs.reasoning) and torch.equal(ours.reconstruction, theirs.reconstruction)
    assert not torch.equal(codec.decode(ours, generator=seeded()), changed.decode(ours, generator=seeded()))
    assert any(name.startswith("autoencoder.") for name in kept)
    assert 0 < len(kept) < len(changed.state_dict())


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Encoding


@pytest.mark.parametrize("num_samples", [1, 3360, 9600, 9601, 3 * UNIT, 3 * UNIT + 1, 7 * UNIT + 5000])
def test_there_and_back_keeps_the_length(codec: ReasoningCodec, num_samples: int) -> None:
    codes = codec.encode(noise(num_samples))
    assert codes.reasoning.shape == (1, 8, reasoning_length(num_samples))
    assert codes.reconstruction.shape == (1, 8, reconstruction_length(num_samples))
    audio = codec.decode(codes, generator=seeded())
    assert audio.shape == (1, 1, num_samples)
    assert torch.isfinite(audio).all()


def test_encoding_twice_gives_the_same_codes(codec: ReasoningCodec) -> None:
    audio = noise(4 * UNIT, batch=2)
    first, second = codec.encode(audio), codec.encode(audio)
    assert torch.equal(first.reasoning, second.reasoning)
    assert torch.equal(first.reconstruction, second.reconstruction)


@pytest.mark.parametrize("windows_at_once", [1, 2, 50])
def test_batched_equals_single_and_the_batch_size_does_not_matter(codec: ReasoningCodec, windows_at_once: int) -> None:
    audio = noise(7 * UNIT + 300, batch=3)
    together = codec.encode(audio, windows_at_once=windows_at_once)
    for row in range(3):
        alone = codec.encode(audio[row : row + 1])
        assert torch.equal(together[row].reasoning, alone.reasoning)
        assert torch.equal(together[row].reconstruction, alone.reconstruction)


@pytest.mark.parametrize("sizes", [[7 * UNIT + 300], [1] * 5 + [50_000, 20_000, 3], [3 * UNIT, 3 * UNIT], [UNIT] * 8])
def test_pieces_equal_the_whole(codec: ReasoningCodec, sizes: list[int]) -> None:
    audio = noise(sum(sizes))
    whole, pieces = codec.encode(audio), codec.encode_stream(iter(audio.split(sizes, dim=2)))
    assert pieces.num_samples == sum(sizes)
    assert torch.equal(whole.reasoning, pieces.reasoning)
    assert torch.equal(whole.reconstruction, pieces.reconstruction)


def test_windows_are_exactly_thirty_seconds(codec: ReasoningCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    codec.config = dataclasses.replace(codec.config, windows=WindowConfig())
    seen: list[Tensor] = []

    def encode_rows(audio: Tensor) -> tuple[Tensor, Tensor]:
        seen.extend(audio[:, 0])
        units = audio.shape[2] // UNIT
        return torch.zeros(len(audio), 8, 2 * units).long(), torch.zeros(len(audio), 8, 5 * units).long()

    monkeypatch.setattr(codec, "_encode_rows", encode_rows)
    num_samples = 2 * 720_000 + 10_000
    codec.encode(1 + torch.arange(num_samples, dtype=torch.float64)[None, None])
    assert [len(window) for window in seen] == [720_000, 720_000, 2 * UNIT]
    assert [float(window[0]) for window in seen] == [1, 720_001, 1_440_001]
    assert not seen[2][10_000:].any()  # silence, not a repetition


def test_few_windows_are_encoded_at_once(codec: ReasoningCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    encode_rows = codec._encode_rows
    monkeypatch.setattr(codec, "_encode_rows", lambda audio: (rows.append(audio.shape[0]), encode_rows(audio))[1])
    codec.encode(noise(30 * UNIT), windows_at_once=2)
    assert rows == [2] * 5
    rows.clear()
    codec.encode(noise(UNIT, batch=8), windows_at_once=2)
    assert rows == [6, 2]  # shorter clips, more of them


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (torch.zeros(1, 24_000), r"\(B, 1, N\)"),
        (torch.zeros(1, 2, 24_000), r"\(B, 1, N\)"),
        (torch.zeros(1, 1, 0), "no audio"),
        (torch.full((1, 1, 100), float("nan")), "not finite"),
        (torch.zeros(1, 1, 100, dtype=torch.int16), "floating point"),
        ("a.wav", "str"),
    ],
)
def test_bad_audio_is_refused(codec: ReasoningCodec, audio: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        codec.encode(audio)


def test_silence_and_constants_work(codec: ReasoningCodec) -> None:
    for level in (0.0, 1.0):
        assert torch.isfinite(codec.decode(codec.encode(torch.full((1, 1, 5000), level)), generator=seeded())).all()


# Decoding


@pytest.mark.parametrize("frames", [1, 5, 20, 21, 34, 35, 61, 90])
def test_windows_cover_the_codes(frames: int) -> None:
    starts = window_starts(frames, WINDOWS)
    assert starts == [WINDOWS.hop_codes * number for number in range(len(starts))]
    assert starts[-1] + WINDOWS.decode_codes >= frames
    assert len(starts) == 1 or frames - starts[-1] > WINDOWS.overlap_codes


def stand_ins(codec: ReasoningCodec, monkeypatch: pytest.MonkeyPatch) -> list[Tensor | None]:
    """Stand-ins that make a latent of the code of its time and hold it for 960 samples; returns the contexts seen."""
    contexts: list[Tensor | None] = []

    def sample(condition: Tensor, *, context: Tensor | None = None, **_: Any) -> Tensor:
        contexts.append(context)
        return condition

    def condition(codes: AudioCodes, start: int, max_frames: int, **_: Any) -> Tensor:
        return codes.reconstruction[:, 0, start : start + max_frames].repeat_interleave(2, dim=1)[..., None].float()

    monkeypatch.setattr(codec.decoder, "sample", sample)
    monkeypatch.setattr(codec, "condition", condition)
    monkeypatch.setattr(codec, "check_streams", lambda codes, with_reasoning: None)  # times exceed the codebook
    monkeypatch.setattr(codec.autoencoder, "decode", lambda z: z.repeat_interleave(LATENT_HOP, 1).transpose(1, 2))
    return contexts


@pytest.mark.parametrize("frames", [3, 20, 21, 48, 49, 100])
def test_a_signal_that_windows_do_not_change_comes_out_without_seams(
    codec: ReasoningCodec, monkeypatch: pytest.MonkeyPatch, frames: int
) -> None:
    contexts = stand_ins(codec, monkeypatch)
    ramp = torch.arange(frames).expand(1, 8, frames)
    audio = codec.decode(AudioCodes(ramp[..., :1], ramp), with_reasoning=False)
    expected = torch.arange(frames).repeat_interleave(RECONSTRUCTION_HOP).float()
    torch.testing.assert_close(audio[0, 0], expected, atol=1e-4, rtol=0)
    assert contexts[0] is None
    for number, context in enumerate(contexts[1:], start=1):
        assert context is not None
        first_latent = number * WINDOWS.hop_codes * 2  # the context is of the time at which the window starts
        times = torch.arange(first_latent, first_latent + WINDOWS.context_latents) // 2
        assert torch.equal(context[0, :, 0], times.float())


def test_windows_of_different_level_fade_at_the_joins(codec: ReasoningCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_ins(codec, monkeypatch)
    calls = iter(range(10))
    monkeypatch.setattr(codec.decoder, "sample", lambda condition, **_: torch.full_like(condition, next(calls)))
    codes = draw_codes(48)
    audio = codec.decode(codes, with_reasoning=False)[0, 0]
    hop, fade = WINDOWS.hop_codes * RECONSTRUCTION_HOP, WINDOWS.context_latents * LATENT_HOP
    for number in (1, 2):
        assert (audio[(number - 1) * hop + fade * (number > 1) : number * hop] == number - 1).all()
        steps = audio[number * hop : number * hop + fade].diff()
        torch.testing.assert_close(steps, torch.full_like(steps, 1 / fade), atol=1e-5, rtol=0)


def test_context_is_kept_by_the_real_decoder(codec: ReasoningCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    latents: list[Tensor] = []
    sample = codec.decoder.sample
    monkeypatch.setattr(codec.decoder, "sample", lambda *a, **k: (latents.append(sample(*a, **k)), latents[-1])[1])
    codec.decode(draw_codes(34), generator=seeded())
    join, context = 2 * WINDOWS.hop_codes, WINDOWS.context_latents
    torch.testing.assert_close(latents[0][:, join : join + context], latents[1][:, :context])
    assert not torch.allclose(latents[0][:, join + context :], latents[1][:, context : 2 * WINDOWS.overlap_codes])


@pytest.mark.parametrize("num_samples", [0, 1, 7, 34 * RECONSTRUCTION_HOP - 1, None])
def test_length_is_exact(codec: ReasoningCodec, num_samples: int | None) -> None:
    audio = codec.decode(draw_codes(34, num_samples=num_samples), generator=seeded())
    assert audio.shape == (1, 1, 34 * RECONSTRUCTION_HOP if num_samples is None else num_samples)


def test_no_codes_give_no_audio(codec: ReasoningCodec) -> None:
    empty = torch.zeros(2, 8, 0, dtype=torch.long)
    assert codec.decode(AudioCodes(empty, empty)).shape == (2, 1, 0)


def test_pieces_of_audio_equal_the_whole_and_are_bounded(codec: ReasoningCodec) -> None:
    codes = draw_codes(120)
    pieces = list(codec.decode_stream(codes, generator=seeded()))
    assert max(piece.shape[2] for piece in pieces) <= WINDOWS.decode_codes * RECONSTRUCTION_HOP
    assert torch.equal(torch.cat(pieces, dim=2), codec.decode(codes, generator=seeded()))


def test_batched_decoding_equals_single(codec: ReasoningCodec) -> None:
    codes = draw_codes(30, batch=2)
    together = codec.decode(codes, generator=[seeded(1), seeded(2)])
    for row in range(2):
        alone = codec.decode(codes[row], generator=seeded(row + 1))
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-4, rtol=1e-4)


def test_reasoning_of_every_window_is_that_of_its_time(codec: ReasoningCodec) -> None:
    codes = draw_codes(43)
    whole = codec.condition(codes, with_reasoning=True)
    for start in range(0, 43, 7):
        part = codec.condition(codes, start, 20, with_reasoning=True)
        torch.testing.assert_close(part, whole[:, 2 * start : 2 * (start + 20)])
    short = AudioCodes(codes.reasoning[..., :3], codes.reconstruction)
    assert codec.condition(short, 30, 10, with_reasoning=True).shape == (1, 20, 16)


def test_every_option_matters(codec: ReasoningCodec) -> None:
    codes = draw_codes(25)
    base = codec.decode(codes, generator=seeded())
    assert torch.equal(codec.decode(codes, generator=seeded()), base)
    options: list[dict[str, Any]] = [
        {"steps": 3},
        {"guidance_scale": 3.0},
        {"solver": "midpoint"},
        {"with_reasoning": True},
        {"generator": seeded(1)},
        {"fill": "repeat"},
        {"noise": [torch.zeros(1, 40, 8), torch.zeros(1, 22, 8)]},
    ]
    for option in options:
        changed = codec.decode(codes, **{"generator": seeded(), **option})
        assert changed.shape == base.shape
        assert not torch.allclose(changed, base), option


def test_presets_say_what_decoding_does_by_default(codec: ReasoningCodec) -> None:
    codes = draw_codes(10)
    explicit = codec.decode(
        codes,
        steps=3,
        guidance_scale=1.0,
        solver="midpoint",
        noise_scale=0.5,
        with_reasoning=True,
        generator=seeded(),
    )
    sampling = SamplingDefaults(steps=3, guidance_scale=1.0, solver="midpoint", noise_scale=0.5, with_reasoning=True)
    before = codec.config
    codec.config = dataclasses.replace(before, sampling=sampling)
    assert torch.equal(codec.decode(codes, generator=seeded()), explicit)
    codec.config = before


def test_the_end_does_not_hear_the_beginning(codec: ReasoningCodec) -> None:
    """Published decoding repeats short clips to full windows, so that noise beyond the clip matters; ours does not."""
    codes = draw_codes(6)
    full = torch.randn(1, 40, 8)
    other = torch.cat([full[:, :12], torch.randn(1, 28, 8)], dim=1)
    ours = [codec.decode(codes, noise=[x[:, :12]]) for x in (full, other)]
    published = [codec.decode(codes, noise=[x], fill="repeat") for x in (full, other)]
    assert torch.equal(*ours)
    assert not torch.allclose(*published)


def test_bad_codes_and_options_are_refused(codec: ReasoningCodec) -> None:
    codes = draw_codes(10)
    too_large = AudioCodes(codes.reasoning, codes.reconstruction + 48)
    with pytest.raises(ValueError, match=r"reconstruction codes must lie in 0\.\.47"):
        codec.decode(too_large)
    with pytest.raises(ValueError, match=r"reasoning codes must lie in 0\.\.31"):
        codec.decode(AudioCodes(codes.reasoning + 32, codes.reconstruction), with_reasoning=True)
    with pytest.raises(ValueError, match="no reasoning codes"):
        codec.decode(AudioCodes(codes.reasoning[..., :0], codes.reconstruction), with_reasoning=True)
    with pytest.raises(ValueError, match="fill"):
        codec.decode(codes, fill="zeros")  # pyright: ignore
    with pytest.raises(ValueError, match="fill"):
        codec.encode(noise(100), fill="zeros")  # pyright: ignore
    with pytest.raises(ValueError, match="step"):
        codec.decode(codes, steps=0)


# The model


def test_frozen_parts_stay_frozen(codec: ReasoningCodec) -> None:
    codec.train()
    assert codec.reconstruction.training
    assert not any(module.training for module in [*codec.encoders.modules(), *codec.autoencoder.modules()])
    assert not any(p.requires_grad for p in [*codec.encoders.parameters(), *codec.autoencoder.parameters()])
    assert all(p.requires_grad for p in codec.reasoning.parameters())


def test_one_training_step_reaches_all_trained_parts() -> None:
    torch.manual_seed(0)
    codec = ReasoningCodec(TINY).train()
    before = copy.deepcopy(codec.state_dict())
    features = codec.extract_features(noise(5 * UNIT, batch=2))
    reasoning = codec.reasoning(features)
    output = codec.reconstruction(features, reasoning.quantized)
    condition = codec.decoder.condition(
        output.quantized + codec.reconstruction.reasoning_condition(reasoning.quantized, output.quantized.shape[1])
    )
    loss = (
        codec.decoder.loss(features["acoustic"], condition)
        + codec.reconstruction.semantic_loss(output, features)
        + output.commitment_loss
        + reasoning.commitment_loss
    )
    loss.backward()
    for name, part in codec.named_children():
        has_gradient = any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in part.parameters())
        assert has_gradient == (name in ("reasoning", "reconstruction", "decoder")), name
    books = [name for name in before if name.endswith("codebook")]
    assert len(books) == 16
    assert all(not torch.equal(before[name], codec.state_dict()[name]) for name in books)


def test_two_encoders_for_one_role_are_refused() -> None:
    encoders = {**TINY.encoders, "musicfm": {"encoder_dim": 16, "conv_dim": 4, "num_heads": 2, "depth": 12}}
    with pytest.raises(ValueError, match=r"'autoencoder_latents' and 'musicfm' both give .*choose one in the preset"):
        ReasoningCodec(dataclasses.replace(TINY, encoders=encoders))


def test_the_preset_says_which_encoder_serves_a_role() -> None:
    twin = {"encoder": "whisper_expert", **TINY.encoders["whisper_expert"], "width": 8}
    encoders = {**TINY.encoders, "twin": twin}
    roles = {"speech": "twin.speech", "phone": "whisper_expert.phone"}
    codec = ReasoningCodec(dataclasses.replace(TINY, encoders=encoders, roles=roles))
    assert codec.feature_info["speech"].channels == 16 and codec.feature_info["phone"].channels == 16
    audio = noise(UNIT)
    features = codec.extract_features(audio)
    twins = codec.encoders["twin"](audio)
    assert torch.equal(features["speech"], twins["speech"]) and not torch.equal(features["phone"], twins["phone"])
    assert set(codec.extract_features(audio, roles=["phone"])) == {"phone"}
    with pytest.raises(ValueError, match="'speech' is to be served by 'twin.words', which is not there; there are"):
        ReasoningCodec(dataclasses.replace(TINY, encoders=encoders, roles={**roles, "speech": "twin.words"}))


def test_presets_of_before_mean_the_same() -> None:
    values = to_plain(TINY)
    parts = values.pop("decoder")["config"]
    assert load_config(CodecConfig, {**values, **parts}) == load_config(
        CodecConfig, {**values, "decoder": {"name": "flow_matching", "config": parts}}
    )
    sizes = load_config(CodecConfig, {**to_plain(TINY), "dit": {"width": 32}}).decoder.config["dit"]
    assert sizes == {**parts["dit"], "width": 32}


@pytest.mark.parametrize("num_samples", [None, 90_000])
@pytest.mark.parametrize("piece", [1, 7, 100])
@pytest.mark.parametrize("with_reasoning", [False, True])
def test_a_session_gives_the_audio_of_the_whole(
    codec: ReasoningCodec, num_samples: int | None, piece: int, with_reasoning: bool
) -> None:
    codes = draw_codes(48, num_samples=num_samples)
    options: dict[str, Any] = {"with_reasoning": with_reasoning}
    session = codec.decoder_session(generator=seeded(), **options)
    nothing = {"reconstruction": codes.reconstruction[..., :0]}
    pieces = [session.push(AudioCodes.of({"reasoning": codes.reasoning, **nothing}, codec.streams))]
    for start in range(0, 48, piece):
        part = codes.reconstruction[..., start : start + piece]
        left = None if num_samples is None else num_samples - start * RECONSTRUCTION_HOP
        known = left if left is not None and left < part.shape[2] * RECONSTRUCTION_HOP else None
        pieces.append(session.push(AudioCodes.of({"reconstruction": part}, codec.streams, known)))
        if known is not None:
            break
    early = sum(one.shape[2] for one in pieces)
    pieces.append(session.finish())
    if num_samples is None:
        assert early >= WINDOWS.hop_codes * RECONSTRUCTION_HOP  # before the end
        assert torch.equal(torch.cat(pieces, dim=2), codec.decode(codes, generator=seeded(), **options))
    assert sum(one.shape[2] for one in pieces) == (48 * RECONSTRUCTION_HOP if num_samples is None else num_samples)


def test_shorter_windows_are_heard_sooner(codec: ReasoningCodec) -> None:
    session = codec.decoder_session(window_codes=4, generator=seeded())
    assert session.push(draw_codes(4)).shape[2] == 2 * RECONSTRUCTION_HOP
    assert session.push(draw_codes(2)).shape[2] == 2 * RECONSTRUCTION_HOP
    assert session.finish().shape[2] == 2 * RECONSTRUCTION_HOP
    whole = codec.decode(draw_codes(30), window_codes=4, generator=seeded())
    assert whole.shape[2] == 30 * RECONSTRUCTION_HOP
    assert not torch.equal(whole, codec.decode(draw_codes(30), generator=seeded()))


def test_windows_grow_and_a_frame_has_the_same_noise_in_all_of_them(
    codec: ReasoningCodec, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []
    sample = codec.decoder.sample
    monkeypatch.setattr(
        codec.decoder, "sample", lambda *args, **kwargs: seen.append(kwargs["noise"]) or sample(*args, **kwargs)
    )
    codes = draw_codes(40)
    session = codec.decoder_session(first_codes=4, window_codes=16, generator=seeded())
    sizes = [session.push(codes_of(codes, index)).shape[2] // RECONSTRUCTION_HOP for index in range(40)]
    rest = session.finish().shape[2] // RECONSTRUCTION_HOP
    assert [(frame, size) for frame, size in enumerate(sizes, 1) if size][:2] == [(4, 2), (10, 4)]
    assert sum(sizes) + rest == 40 and max(sizes) > 4
    streamed, starts = list(seen), [0, 2, 6]
    seen.clear()
    codec.decode(codes, window_codes=250, generator=seeded())
    for start, noise in zip(starts, streamed, strict=False):
        assert torch.equal(noise, seen[0][:, 2 * start : 2 * start + noise.shape[1]])


def codes_of(codes: AudioCodes, frame: int) -> AudioCodes:
    """One reconstruction frame of codes."""
    return AudioCodes.of({"reconstruction": codes.reconstruction[..., frame : frame + 1]}, codes.hops)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"first_codes": 1}, "first_codes must be at least 2"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"solver": "magic"}, "unknown solver"),
        ({"noise_scale": float("nan")}, "noise_scale"),
        ({"guidance_scale": float("inf")}, "guidance_scale"),
        ({"kind": "song"}, "kind must be"),
        ({"fill": "noise"}, "fill must be"),
        ({"window_codes": 1}, "window_codes must be"),
    ],
)
def test_options_are_checked_at_the_call(codec: ReasoningCodec, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        codec.decode_stream(draw_codes(3), **options)


def test_a_missing_encoder_is_named() -> None:
    encoders = {name: values for name, values in TINY.encoders.items() if name != "sound_expert"}
    with pytest.raises(ValueError, match="no encoder gives the feature 'semantic'"):
        ReasoningCodec(dataclasses.replace(TINY, encoders=encoders))


def test_config_is_checked() -> None:
    with pytest.raises(ValueError, match="overlap_codes"):
        WindowConfig(decode_codes=20, overlap_codes=11)
    with pytest.raises(ValueError, match="context_latents"):
        WindowConfig(decode_codes=20, overlap_codes=5, context_latents=11)
    with pytest.raises(ValueError, match="takes no values"):
        dataclasses.replace(TINY, encoders={"autoencoder_latents": {"width": 3}})


@pytest.mark.parametrize("name", ["nano", "tiny"])
def test_presets_build(name: str) -> None:
    with torch.device("meta"):
        codec = ReasoningCodec(load_config(CodecConfig, preset_path("codec", name)))
    assert set(codec.feature_info) == {"speech", "phone", "semantic", "acoustic"}
    assert codec.config.reconstruction.num_codebooks == codec.config.reasoning.quantizer.num_codebooks == 8


def test_codebook_vectors_add_up_to_what_decoding_gives(codec: ReasoningCodec) -> None:
    codes = draw_codes(5)
    for branch, decode, ids in (
        ("reasoning", codec.reasoning.decode, codes.reasoning),
        ("reconstruction", codec.reconstruction.decode, codes.reconstruction),
    ):
        vectors = codec.codebook_vectors(branch)  # pyright: ignore[reportArgumentType]
        total = torch.stack([vectors[k][ids[0, k]] for k in range(8)]).sum(0)
        rest = decode(ids)[0] - total  # the projections' biases, the same in every frame
        torch.testing.assert_close(rest, rest[:1].expand_as(rest), atol=1e-5, rtol=1e-5)


def test_padding_behind_a_clip_does_not_change_its_codes(codec: ReasoningCodec) -> None:
    clips = [noise(n)[0] for n in (UNIT, UNIT + 5, 3 * UNIT - 1, 700)]
    padded = torch.stack([torch.nn.functional.pad(clip, (0, 7 * UNIT - clip.shape[1])) for clip in clips])
    together = codec.encode(padded, lengths=[clip.shape[1] for clip in clips])
    for clip, codes in zip(clips, together, strict=True):
        assert codes == codec.encode(clip[None])
    assert codec.encode(padded)[0].slice_units(0, 1) != together[0]  # without lengths, silence is part of the clip
    with pytest.raises(ValueError, match="lengths must be 4 numbers"):
        codec.encode(padded, lengths=[1, 2])


def test_streams_describe_the_codes(codec: ReasoningCodec) -> None:
    codes = codec.encode(noise(UNIT))
    assert [stream.name for stream in codec.streams] == list(codes.streams)
    assert codec.unit == UNIT
    codec.check_codes(codes)
    for stream in codec.streams:
        assert codes[stream.name].shape == (1, stream.num_codebooks, UNIT // stream.hop_length)
