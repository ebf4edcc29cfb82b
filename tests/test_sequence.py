"""Sequences: rows, masks, spans, prompts, guidance form, shots, padding, and back to codes."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
import torch

from uniaudio2.codes import AudioCodes, Stream
from uniaudio2.config import ConfigError, load_config, preset_path, to_plain
from uniaudio2.lm import LMConfig
from uniaudio2.sequence import VOICE_FRAMES, SequenceBuilder, SequenceError, voice_codes
from uniaudio2.tasks import TASKS
from uniaudio2.tokenizer import AudioVocabulary, TextTokenizer

CONFIG = load_config(LMConfig, preset_path("lm", "tiny"))
TOKENIZER = TextTokenizer.train(["the cat sat on the mat", "read this text aloud", "tts asr en zh"] * 3, 300)


def builder(style: str = "short", **changes: Any) -> SequenceBuilder:
    audio = replace(CONFIG.audio, **changes)
    return SequenceBuilder(TOKENIZER, audio, prompt_style=style)  # type: ignore[arg-type]


def audio(frames: int = 2) -> AudioCodes:
    return AudioCodes(torch.randint(0, 16, (1, 8, frames)), torch.randint(0, 32, (1, 8, int(frames * 2.5))), None)


def value_for(part: Any) -> Any:
    if part.kind == "text":
        return "the cat sat"
    return audio().reconstruction[0] if part.kind == "voice" else audio()


def values_for(task: str) -> dict[str, Any]:
    return {part.value: value_for(part) for part in (*TASKS[task].inputs, *TASKS[task].outputs)}


@pytest.mark.parametrize("task", list(TASKS))
def test_every_task_makes_a_sound_example(task: str) -> None:
    example = builder().example(task, values_for(task))
    assert example.tokens.shape == example.mask.shape == example.loss_mask.shape
    assert bool((example.mask[:, :8].all(dim=1) ^ example.mask[:, 8]).all())  # audio or text, never both
    assert not bool((example.loss_mask & ~example.mask).any())
    assert [span.stop for span in example.spans[:-1]] == [span.start for span in example.spans[1:]]
    assert example.spans[-1].stop == len(example)
    targets = torch.zeros(len(example), dtype=torch.bool)
    for span in example.spans:
        targets[span.start : span.stop] = span.target
    assert torch.equal(example.loss_mask.any(dim=1), targets) and bool(targets.any())
    assert int(example.tokens[..., :8].max()) < CONFIG.audio.size


def test_offsets_and_special_frames() -> None:
    codes = audio(2)
    example = builder().example("audio_only", {"audio": codes})
    shift, (reasoning, fine) = CONFIG.audio.fine_shift, CONFIG.audio.streams
    first, second = example.spans
    assert example.tokens[first.start, :8].tolist() == [reasoning.bos] * 8
    assert torch.equal(example.tokens[first.codes, :8].T, codes.reasoning[0])
    assert torch.equal(example.tokens[second.codes, :8].T - shift, codes.reconstruction[0])
    assert example.tokens[second.stop - 1, :8].tolist() == [fine.eos + shift] * 8


def test_published_voice_ids_are_not_shifted_ours_are() -> None:
    values = values_for("prompt_instruct_tts")
    ours = builder().example("prompt_instruct_tts", values)
    published = builder(shift_voice_ids=False).example("prompt_instruct_tts", values)
    span = ours.spans[1]
    assert span.kind == "voice"
    assert int(ours.tokens[span.start, 0]) == CONFIG.audio.voice_bos + CONFIG.audio.fine_shift
    assert int(published.tokens[span.start, 0]) == CONFIG.audio.voice_bos
    assert torch.equal(ours.tokens[span.codes], published.tokens[span.codes])


def test_prompt_styles_and_languages() -> None:
    values = values_for("tts")
    short = builder()
    plain, english = (short.example("tts", values, language=language) for language in (None, "en"))
    assert len(english) > len(plain)
    full = builder("full")
    drawn = {tuple(full.prompt_ids(TASKS["tts"], rng=random.Random(seed))) for seed in range(20)}
    assert len(drawn) == len(TASKS["tts"].prompts)
    assert full.prompt_ids(TASKS["tts"]) == full.text_ids(TASKS["tts"].prompts[0] + "\n\n")
    assert full.prompt_ids(TASKS["text_only"]) == []


def test_optional_voice_may_be_left_out() -> None:
    values = values_for("tts")
    with_voice = builder().example("tts", values)
    del values["voice"]
    assert len(builder().example("tts", values)) == len(with_voice) - audio().reconstruction.shape[-1] - 2


def test_guidance_form_keeps_targets_and_masks() -> None:
    values = values_for("tts")
    plain, hidden = (builder().example("tts", values, guidance_form=form) for form in (False, True))
    target = plain.loss_mask.any(dim=1)
    assert torch.equal(plain.tokens[target], hidden.tokens[target])
    assert torch.equal(plain.mask, hidden.mask)
    text = plain.mask[:, 8]
    assert set(hidden.tokens[text, 8].tolist()) == {CONFIG.text.text_pad}
    with pytest.raises(SequenceError, match="no guidance form"):
        builder().example("asr", values_for("asr"), guidance_form=True)


def test_prompt_is_the_head_of_the_example() -> None:
    for task in ("tts", "asr", "speech_ss"):
        values = values_for(task)
        example, prompt = builder().example(task, values), builder().prompt(task, values)
        assert torch.equal(prompt.tokens, example.tokens[: len(prompt)])
        outputs = [span for span in example.spans if span.target]
        assert len(prompt) > outputs[0].start  # begin rows are part of the prompt
        links = torch.cat([phase.link_tokens for phase in prompt.phases])
        assert torch.equal(links[-1], example.tokens[-1])


def test_shots_come_first_and_pay_loss_only_when_asked() -> None:
    values = values_for("asr")
    plain = builder().example("asr", values)
    shot = builder().example("asr", values, shots=[values_for("asr")])
    paid = builder().example("asr", values, shots=[values_for("asr")], loss_on_shots=True)
    assert len(shot) > len(plain)
    assert int(shot.loss_mask.sum()) == int(plain.loss_mask.sum())
    assert int(paid.loss_mask.sum()) > int(shot.loss_mask.sum())
    assert len(builder().prompt("asr", values, shots=[values])) > len(builder().prompt("asr", values))


def test_concatenate_and_collate() -> None:
    one, two = builder().example("asr", values_for("asr")), builder().example("tta", values_for("tta"))
    joined = builder().concatenate([one, two])
    assert len(joined) == len(one) + len(two)
    assert joined.spans[len(one.spans)].start == len(one)
    batch = builder().collate([one, two], multiple_of=32)
    assert batch.tokens.shape[1] % 32 == 0
    assert torch.equal(batch.tokens[1, : len(two)], two.tokens)
    assert not bool(batch.mask[1, len(two) :].any())
    assert batch.lengths.tolist() == [len(one), len(two)]


def test_generated_ids_become_codes() -> None:
    phases = builder().prompt("tts", {"transcription": "the cat"}).phases
    codes = torch.randint(0, 32, (8, 5))
    assert torch.equal(builder().ids_to_codes(phases[1], codes.T + CONFIG.audio.fine_shift), codes)
    with pytest.raises(SequenceError, match="leave the codebook"):
        builder().ids_to_codes(phases[1], torch.full((1, 8), CONFIG.audio.size - 1))


def test_bytes_that_make_no_character_are_left_out() -> None:
    cat, han = (TOKENIZER.encode(text, special=False) for text in ("cat", "世"))
    assert len(han) == 3  # one token for each byte
    assert builder().ids_to_text([*cat, *han]).endswith("世")
    for broken in ([*cat, han[0]], [han[1], *cat], [*cat, *han[:2], *cat], han[::-1]):
        text = builder().ids_to_text(broken)
        assert "\ufffd" not in text and text.replace(" ", "").replace("cat", "") == ""


def test_voice_prompt_is_cut() -> None:
    codes = torch.arange(80).expand(8, -1)
    assert voice_codes(codes).shape == (8, VOICE_FRAMES)
    starts = {int(voice_codes(codes, random.Random(seed))[0, 0]) for seed in range(9)}
    assert len(starts) > 3
    assert voice_codes(codes[:, :5]).shape == (8, 5)


@pytest.mark.parametrize(
    ("task", "values", "message"),
    [
        ("asr", {}, "needs the value 'audio'"),
        ("tts", {"transcription": "a", "lyric": "b"}, "has no value 'lyric'"),
        ("tts", {"transcription": 3}, "must be text"),
        ("asr", {"audio": "wave"}, "must be audio codes"),
        ("asr", {"audio": (torch.full((8, 2), 99), torch.zeros(8, 5))}, "another codec"),
        ("asr", {"audio": (torch.zeros(4, 2), torch.zeros(8, 5))}, r"\(8, T\)"),
        ("audio_only", {"audio": torch.zeros(8, 2)}, "needs reasoning and reconstruction"),
    ],
)
def test_bad_values(task: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(SequenceError, match=message):
        builder().example(task, values)


def test_a_codec_of_one_stream_serves_the_same_rows() -> None:
    vocabulary = AudioVocabulary.of([Stream("acoustic", 1920, 8, 32)])
    one = SequenceBuilder(builder().tokenizer, vocabulary, text=CONFIG.text, prompt_style="short")
    codes = AudioCodes.of({"acoustic": torch.randint(0, 32, (1, 8, 6))}, {"acoustic": 1920})
    example = one.example("tts", {"transcription": "abc", "audio": codes, "voice": codes["acoustic"][0, :, :3]})
    assert [span.kind for span in example.spans] == ["prompt", "voice", "text", "acoustic"]
    assert torch.equal(example.tokens[example.spans[3].codes, :8].T, codes["acoustic"][0])
    (phase,) = one.prompt("tts", {"transcription": "abc"}).phases
    assert (phase.kind, phase.low, phase.high, phase.hop_length) == ("acoustic", 0, 32, 1920)
    with pytest.raises(SequenceError, match="no stream 'reasoning'; its codec has acoustic"):
        one.example("reason_copy", {"audio": codes, "copy": codes})


def test_vocabularies_of_before_are_read_with_the_same_ids() -> None:
    old = {
        **{"num_codebooks": 8, "num_reasoning": 260, "num_reconstruction": 520, "reasoning_codebook_size": 256},
        **{"reconstruction_codebook_size": 512, "reasoning_bos": 256, "reasoning_eos": 257, "reasoning_pad": 258},
        **{"reconstruction_bos": 512, "reconstruction_eos": 513, "reconstruction_pad": 514},
        **{"voice_bos": 515, "voice_eos": 516, "shift_voice_ids": True},
    }
    nano = load_config(LMConfig, preset_path("lm", "nano")).audio
    assert load_config(AudioVocabulary, old) == nano
    assert load_config(AudioVocabulary, to_plain(nano)) == nano
    assert (nano.size, nano.fine_shift) == (780, 260)
    with pytest.raises(ConfigError, match="unknown key 'num_reasonings'; did you mean 'num_reasoning'"):
        load_config(AudioVocabulary, {**old, "num_reasonings": 3})
    with pytest.raises(ValueError, match="trained with another codec"):
        nano.check_codec([Stream("acoustic", 1920, 8, 512)])
