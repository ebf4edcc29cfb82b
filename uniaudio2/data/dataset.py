"""Training sequences made of prepared codes, as the task table says.

``LMDataset`` turns draws of a mixture into padded batches; a batch is a pure function of (seed, index).
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from uniaudio2.codes import AudioCodes
from uniaudio2.data.collate import LMBatch, Segment, collate
from uniaudio2.data.episodes import Episode, Episodes, Labelled
from uniaudio2.data.mixture import MixtureConfig, Planner, Pool
from uniaudio2.data.prefetch import batch_rng
from uniaudio2.data.store import Clip, CodeStore, DatasetError
from uniaudio2.sequence import SequenceBuilder, Value
from uniaudio2.tasks import Audio, Form, Label, Sentence, Source, Text, Voice, get_form
from uniaudio2.text import normalise_text

_EXAMPLE_ROWS = 240
"""Rows of the examples of an episode, about: three of four seconds on average."""


@dataclass(frozen=True)
class Filled:
    """What an example is made of."""

    values: Mapping[str, Value]
    shots: Sequence[Mapping[str, Value]] = ()  # complete examples in front
    language: str | None = None  # that the prompt names


class LMDataset:
    """Training batches of the language model: batch ``i`` is a function of (seed, i) alone.

    Args:
        store: Prepared clips.
        builder: Makes token sequences.
        config: Tasks, lengths, budget.
        seed: Of the run.
        texts: Normalised sentences for ``text_only``, besides the store's own transcripts.
        phones: Phone → id from 1 on, for what can be heard; other phones are left out.
        align_listening: See ``collate``.
        plan: False for held-out data, from which no training batch is drawn.

    Raises:
        MixtureError: If a task has a weight but no clip.
    """

    def __init__(
        self,
        store: CodeStore,
        builder: SequenceBuilder,
        config: MixtureConfig,
        *,
        seed: int,
        texts: Sequence[str] = (),
        phones: Mapping[str, int] | None = None,
        align_listening: bool = True,
        plan: bool = True,
    ) -> None:
        self.store, self.builder, self.config, self.seed = store, builder, config, seed
        self.align_listening = align_listening
        self.phones = dict(phones or {})
        self.texts = list(
            dict.fromkeys([*(c.text for c in store.clips if c.text and not c.copy and not c.parts), *texts])
        )
        self._ids: dict[str, list[int]] = {}
        self._voices = self._voice_index()
        self._episodes = Episodes([_labelled(clip) for clip in store.clips], _names(self.texts))
        voice_numbers = {name: i for i, name in enumerate(dict.fromkeys(c.speaker for c in store.clips if c.speaker))}
        text_numbers = {text: i for i, text in enumerate(dict.fromkeys(c.text for c in store.clips if c.text))}
        self.forms = {name: get_form(name) for name, weight in config.weights.items() if weight > 0}
        if not plan:
            return
        self.planner = Planner(
            config,
            {name: self._pool(form) for name, form in self.forms.items()},
            seed,
            speakers=np.array([voice_numbers.get(c.speaker or "", -1) for c in store.clips]),
            texts=np.array([text_numbers.get(c.text or "", -1) for c in store.clips]),
        )

    # ---------------------------------------------------------------- what can be drawn

    def text_ids(self, text: str) -> list[int]:
        """Ids of a text with begin and end of text, remembered."""
        if text not in self._ids:
            self._ids[text] = self.builder.text_ids(text)
        return self._ids[text]

    def _voice_index(self) -> dict[str, np.ndarray]:
        """Clips that can be voice prompts, by speaker; at least two each."""
        found: dict[str, list[int]] = {}
        for index, clip in enumerate(self.store.clips):
            long_enough = clip.duration_s >= self.config.min_voice_prompt_s
            whole = "audio" in clip.audios and not clip.parts
            if clip.kind == "speech" and clip.speaker and clip.clean and whole and long_enough:
                found.setdefault(clip.speaker, []).append(index)
        return {speaker: np.array(indices) for speaker, indices in found.items() if len(indices) > 1}

    def fits(self, form: Form, index: int) -> bool:
        """Whether a clip can serve a form of a task; see `uniaudio2.tasks.Training`."""
        clip, task = self.store.clips[index], form.task
        if task.training is None or clip.kind not in task.training.kinds:
            return False
        sources = form.sources.values()
        if task.makes_audio:
            prompted = any(isinstance(source, Voice) for source in sources)
            if not (clip.clean if prompted else not clip.copy):
                return False
            houses = self.config.house_voices
            if houses and not prompted and "voice" in task.optional_inputs and clip.speaker not in houses:
                return False
        if form.task.needs_examples:
            return self._episodes.has(index)
        return all(self._has(clip, source) for source in sources)

    def _has(self, clip: Clip, source: Source) -> bool:
        """Whether a clip can fill a value."""
        if isinstance(source, Audio):
            return source.name in clip.audios
        if isinstance(source, Text):
            return bool(clip.texts.get(source.name))
        if isinstance(source, Voice) and source.audio is not None:
            return source.audio in clip.audios
        return isinstance(source, Voice) and len(self._prompts(clip)) > 0

    def _pool(self, form: Form) -> Pool:
        if any(isinstance(source, Sentence) for source in form.sources.values()):
            rows = self._prompt_rows(form, None)
            lengths = np.array([rows + len(self.text_ids(text)) for text in self.texts], dtype=np.int64)
            return Pool(np.arange(len(lengths)), np.zeros(len(lengths)), lengths, np.ones(len(lengths)), clips=False)
        config, clips = self.config, self.store.clips
        durations = np.array([clip.duration_s for clip in clips])
        right_length = (durations <= config.max_duration_s) & (durations >= config.min_duration_s)
        items = np.array([i for i in range(len(clips)) if right_length[i] and self.fits(form, i)], dtype=np.int64)
        positions = np.array([self._positions(form, int(i)) for i in items], dtype=np.int64)
        repeats = np.array([self._repeats(clips[int(i)]) for i in items], dtype=np.float64)
        return Pool(items, durations[items] if len(items) else np.zeros(0), positions, repeats)

    def _repeats(self, clip: Clip) -> float:
        factor = 1.0
        for key in {clip.source, clip.engine or "recorded", clip.language, clip.kind}:
            factor *= self.config.source_repeats.get(key or "", 1.0)
        return factor

    def _prompt_rows(self, form: Form, language: str | None) -> int:
        return len(self.builder.prompt_ids(form.task, language=language))

    def _positions(self, form: Form, index: int) -> int:
        """Rows of a sequence, without BPE dropout."""
        clip, sources = self.store.clips[index], form.sources
        rows = self._prompt_rows(form, _language(clip))
        for part in (*form.inputs, *form.task.outputs):
            source = sources[part.value]
            if isinstance(source, Audio):
                frames = self.store.frames(index, source.name)
                rows += sum(frames[stream] + 2 for stream in (frames if part.kind == "audio" else (part.kind,)))
            elif isinstance(source, Text):
                rows += len(self.text_ids(clip.phrasings(source.name)[0])) + (2 if part.tag else 0)
            elif isinstance(source, Voice):
                rows += self.store.voice_frames(self.config.voice_prompt_s) + 2
        return rows + _EXAMPLE_ROWS if form.task.needs_examples else rows

    # ---------------------------------------------------------------- building

    def fill(
        self,
        form: Form,
        item: int,
        rng: np.random.Generator,
        *,
        condition: int | None = None,
        training: bool = True,
    ) -> Filled:
        """What an example is made of; arguments as for `segment`."""
        given = item if condition is None else condition
        episode = self._episodes.draw(item, rng) if form.task.needs_examples else None
        values = {name: self._value(form, name, given, item, rng, training, episode) for name in form.values}
        if any(isinstance(source, Sentence) for source in form.sources.values()):
            return Filled(values)
        language = _language(self.store.clips[item])
        nameless = training and not form.task.makes_audio and self.store.clips[item].kind == "speech"
        if episode is not None or (nameless and rng.random() < self.config.language_dropout):
            language = None
        return Filled(values, self._shots(form, episode), language)

    def segment(
        self,
        form: Form,
        item: int,
        rng: np.random.Generator,
        *,
        condition: int | None = None,
        training: bool = True,
    ) -> Segment:
        """One example.

        Args:
            form: What is made of it.
            item: Clip, or sentence where the form takes any.
            rng: Source of every choice.
            condition: Clip that the inputs are taken from in place of ``item``'s own (to measure how much the
                model makes of its condition); a voice prompt is always the item's.
            training: With BPE dropout, varied captions, dropped languages and guidance dropout.
        """
        filled = self.fill(form, item, rng, condition=condition, training=training)
        task, config = form.task, self.config
        if any(isinstance(source, Sentence) for source in form.sources.values()):
            return Segment(self.builder.example(task, filled.values), form)
        sequence = self.builder.example(
            task,
            filled.values,
            shots=filled.shots,
            language=filled.language,
            guidance_form=training and task.guidance and rng.random() < config.guidance_dropout,
            text_dropout=config.bpe_dropout if training else 0.0,
            rng=random.Random(int(rng.integers(2**63))) if training else None,
        )
        if filled.shots:  # which of its recordings says what is nobody's lesson
            return Segment(sequence, form)
        given = item if condition is None else condition
        inputs = {part.value for part in form.inputs}
        said = {
            name: tuple(self.phones[p] for p in self._phones_in(source, given if name in inputs else item))
            for name, source in form.sources.items()
        }
        return Segment(sequence, form, {name: phones for name, phones in said.items() if phones})

    def _phones_in(self, source: Source, index: int) -> list[str]:
        """Phones that are known to be said in a value."""
        if not isinstance(source, Audio) or source.says != "text":
            return []
        return [phone for phone in (self.store.clips[index].phonemes or "").split() if phone in self.phones]

    def _shots(self, form: Form, episode: Episode | None) -> Sequence[Mapping[str, Value]]:
        """The examples of an episode, as values."""
        if episode is None:
            return []
        labels = [name for name, source in form.sources.items() if isinstance(source, Label)]
        audios = {name: source.name for name, source in form.sources.items() if isinstance(source, Audio)}
        return [
            {name: self.store.codes(clip, audio) for name, audio in audios.items()}
            | {name: self.text_ids(called) for name in labels}
            for clip, called in episode.examples
        ]

    def _value(
        self,
        form: Form,
        name: str,
        given: int,
        item: int,
        rng: np.random.Generator,
        training: bool,
        episode: Episode | None,
    ) -> Value:
        """One value of an example: an input is taken from clip ``given``, an output from clip ``item``."""
        source, config = form.sources[name], self.config
        inputs = {part.kind for part in form.inputs if part.value == name}
        if isinstance(source, Sentence):
            return self.text_ids(self.texts[item])
        if isinstance(source, Label):
            assert episode is not None
            return self.text_ids(episode.answer)
        if isinstance(source, Voice) and source.audio is not None:
            return self.store.voice(item, rng, config.voice_prompt_s, source.audio)
        if isinstance(source, Voice):
            return self.store.voice(self._other_clip(item, rng), rng, config.voice_prompt_s)
        if isinstance(source, Text):
            usual, *others = self.store.clips[given if inputs else item].phrasings(source.name)
            if inputs and training:
                chosen = _pick((usual, *others), rng)
                return chosen if source.respelled and config.bpe_dropout > 0 else self.text_ids(chosen)
            vary = training and others and rng.random() < config.caption_variety
            return self.text_ids(_pick(others, rng) if vary else usual)
        codes = self.store.codes(item, source.name)
        if not inputs or given == item:
            return codes
        others = self.store.codes(given, source.name)
        streams = {kind: (others if {kind, "audio"} & inputs else codes)[kind] for kind in codes.streams}
        return AudioCodes.of(streams, codes.hops, sample_rate=codes.sample_rate)

    def _other_clip(self, item: int, rng: np.random.Generator) -> int:
        """Another clip of the same voice."""
        choices = self._prompts(self.store.clips[item])
        choices = choices[choices != item]
        return int(choices[rng.integers(len(choices))])

    def _prompts(self, clip: Clip) -> np.ndarray:
        """Voice prompts for a clip, which may be among them; none if there would be no other."""
        own = self._voices.get(clip.speaker or "", np.zeros(0, dtype=np.int64))
        return own[~np.isin(own, clip.parts)] if clip.parts else own

    def batch(self, index: int) -> LMBatch:
        """Training batch ``index``."""
        rows = []
        for number, draw in enumerate(self.planner.batch(index)):
            rng = batch_rng(self.seed, index, stream=number + 1)
            rows.append([self.segment(self.forms[name], item, rng) for name, item in draw.segments])
        return collate(self.builder, rows, align_listening=self.align_listening)

    def held_out(self, form: Form, items: Sequence[int], *, shuffled: bool) -> LMBatch:
        """A fixed batch for evaluation; ``shuffled`` gives every example the condition of its neighbour."""
        rows = []
        for number, item in enumerate(items):
            rng = batch_rng(0, item, stream=7)
            other = items[(number + 1) % len(items)] if shuffled else None
            rows.append([self.segment(form, item, rng, condition=other, training=False)])
        return collate(self.builder, rows, align_listening=self.align_listening)


def _labelled(clip: Clip) -> Labelled:
    whole = "audio" in clip.audios and not clip.parts
    return Labelled.of(clip.id, clip.label, clip.source, clip.duration_s, recorded=whole and clip.engine is None)


def _names(texts: Iterable[str]) -> list[str]:
    """Words of English sentences that can stand for a class."""
    words = (word for text in texts for word in text.split())
    return list(dict.fromkeys(word for word in words if word.isascii() and word.isalpha() and 3 <= len(word) <= 8))


def _pick(choices: Sequence[str], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]


def _language(clip: Clip) -> str | None:
    """The language that a prompt may name."""
    return clip.language if clip.kind == "speech" else None


def read_sentences(path: str | Path, language: str, *, without: Iterable[str] = ()) -> list[str]:
    """Normalised sentences of a text file, one per line.

    Args:
        path: UTF-8 text.
        language: ``en``, ``zh`` or ``yue``.
        without: Sentences that must not be among them (held-out texts).

    Raises:
        DatasetError: If the file cannot be read.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: cannot be read as text ({error})") from None
    left_out = set(without)
    sentences = (normalise_text(line, language) for line in lines if line.strip())
    return [sentence for sentence in sentences if sentence and sentence not in left_out]
