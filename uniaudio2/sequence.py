"""Codes and text to token frames and back: the only place that applies vocabulary offsets and special ids.

Rows hold K audio ids and one text id (last). Shapes: S rows, K codebooks, T codec frames. Codes are raw indices in
[0, codebook size), tokens are ids of the language model.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from uniaudio2.codes import AudioCodes
from uniaudio2.sequence_types import Phase, Prompt, SequenceError, Span, TokenBatch, TokenSequence, Value
from uniaudio2.tasks import Part, Task, get_task
from uniaudio2.tokenizer import TextTokenizer
from uniaudio2.vocabulary import AudioTokens, AudioVocabulary, StreamTokens, TextTokens

VOICE_FRAMES = 37  # int(3 s x 12.5 Hz): a voice prompt is at most this long

__all__ = ["Phase", "Prompt", "SequenceBuilder", "SequenceError", "Span", "TokenBatch", "TokenSequence", "Value"]


class SequenceBuilder:
    """Builds sequences of every task from the task table.

    Args:
        tokenizer: Text to ids; None if all text is given as ids.
        audio: Streams of the codec, with their sizes and special ids.
        text: Special ids of the text stream; those of the tokenizer by default.
        prompt_style: ``short`` or ``full``, see :class:`uniaudio2.lm.LMConfig`.
    """

    def __init__(
        self,
        tokenizer: TextTokenizer | None,
        audio: AudioVocabulary | AudioTokens,
        *,
        text: TextTokens | None = None,
        prompt_style: Literal["short", "full"] = "full",
    ) -> None:
        if text is None:
            if tokenizer is None:
                raise SequenceError("give a tokenizer or the special ids of the text stream")
            text = tokenizer.tokens
        self.tokenizer = tokenizer
        self.audio = audio.upgraded() if isinstance(audio, AudioTokens) else audio
        self.text = text
        self.prompt_style = prompt_style

    # -- rows -------------------------------------------------------------------------------------------------------

    @property
    def columns(self) -> int:
        """K + 1."""
        return self.audio.num_codebooks + 1

    def text_rows(self, ids: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Rows of text ids: tokens and mask, (len(ids), K+1)."""
        tokens = torch.zeros(len(ids), self.columns, dtype=torch.int64, device="cpu")
        tokens[:, -1] = torch.as_tensor(list(ids), dtype=torch.int64, device="cpu")
        mask = torch.zeros(len(ids), self.columns, dtype=torch.bool, device="cpu")
        mask[:, -1] = True
        return tokens, mask

    def audio_rows(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of audio ids (n, K), offsets applied: tokens and mask, (n, K+1)."""
        tokens = torch.zeros(ids.shape[0], self.columns, dtype=torch.int64, device=ids.device)
        tokens[:, :-1] = ids
        mask = torch.ones(ids.shape[0], self.columns, dtype=torch.bool, device=ids.device)
        mask[:, -1] = False
        return tokens, mask

    def _frame(self, token: int) -> Tensor:
        return torch.full((1, self.audio.num_codebooks), token, dtype=torch.int64, device="cpu")

    def _frames(self, kind: str) -> tuple[int, int, int, StreamTokens]:
        """Begin id, end id, offset and stream of an audio part; offsets are applied to the ids."""
        audio = self.audio
        if kind == "voice":
            # Released weights: the ids around a voice prompt are not shifted, see AudioVocabulary.shift_voice_ids.
            extra = audio.fine_shift if audio.shift_voice_ids else 0
            return audio.voice_bos + extra, audio.voice_eos + extra, audio.fine_shift, audio.fine
        try:
            stream, shift = audio.stream(kind)
        except ValueError as error:
            raise SequenceError(str(error)) from None
        return stream.bos + shift, stream.eos + shift, shift, stream

    def expand(self, parts: Iterable[Part]) -> tuple[Part, ...]:
        """Parts of a task with every recording written out: one part for each stream of the codec, in order."""
        return tuple(
            replace(part, kind=kind)
            for part in parts
            for kind in ([stream.name for stream in self.audio.streams] if part.kind == "audio" else [part.kind])
        )

    def codes_to_rows(self, kind: str, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Codes (K, T) between their begin and end frame: tokens and mask, (T + 2, K+1).

        Raises:
            SequenceError: If the shape is wrong or a code is outside its codebook.
        """
        if codes.ndim != 2 or codes.shape[0] != self.audio.num_codebooks:
            raise SequenceError(f"codes must be ({self.audio.num_codebooks}, T), got {tuple(codes.shape)}")
        begin, end, offset, stream = self._frames(kind)
        if codes.numel() and (int(codes.min()) < 0 or int(codes.max()) >= stream.codebook_size):
            raise SequenceError(
                f"{kind} codes must be in [0, {stream.codebook_size}), got {int(codes.min())}..{int(codes.max())}; "
                "are they from another codec?"
            )
        return self.audio_rows(torch.cat((self._frame(begin), codes.T.to(torch.int64) + offset, self._frame(end))))

    def text_ids(
        self, text: str | Sequence[int], *, dropout: float = 0.0, rng: random.Random | None = None
    ) -> list[int]:
        """Ids of a text with begin and end of text; ids pass through unchanged."""
        if not isinstance(text, str):
            return [int(index) for index in text]
        if self.tokenizer is None:
            raise SequenceError("text was given but the builder has no tokenizer")
        return self.tokenizer.encode(text, dropout=dropout, rng=rng)

    def prompt_ids(self, task: Task, *, language: str | None = None, rng: random.Random | None = None) -> list[int]:
        """Ids of the task's prompt: drawn from its paraphrases with ``rng``, else the first; empty without prompts."""
        if not task.prompts:
            return []
        if self.prompt_style == "short":
            words = (task.short, language or task.language)
            return self.text_ids(" ".join(word for word in words if word))
        text = task.prompts[0] if rng is None else rng.choice(task.prompts)
        return self.text_ids(text.strip() + "\n\n")

    # -- sequences --------------------------------------------------------------------------------------------------

    def example(
        self,
        task: str | Task,
        values: Mapping[str, Value],
        *,
        shots: Iterable[Mapping[str, Value]] = (),
        language: str | None = None,
        prompt: str | Sequence[int] | None = None,
        guidance_form: bool = False,
        loss_on_shots: bool = False,
        text_dropout: float = 0.0,
        rng: random.Random | None = None,
    ) -> TokenSequence:
        """A training sequence with its loss mask.

        Args:
            task: Name or row.
            values: Every value of the task (optional ones may be absent); texts are wrapped in their tags here.
            shots: Complete examples of the same task that come first, after the prompt.
            language: Named in short prompts.
            prompt: Text or ids in place of the task's own prompt.
            guidance_form: Replace the condition by padding (tasks with guidance).
            loss_on_shots: The outputs of the shots are targets too.
            text_dropout: BPE dropout of input texts; targets are never dropped.
            rng: Draws the prompt and the dropout; None: the first prompt, no dropout.

        Returns:
            Tokens, masks and spans.

        Raises:
            SequenceError: If a value is missing, unknown or out of range.
        """
        task = get_task(task)
        parts: list[tuple[Part | None, Tensor, Tensor, bool]] = []
        ids = self.text_ids(prompt) if prompt is not None else self.prompt_ids(task, language=language, rng=rng)
        if ids:
            parts.append((None, *self.text_rows(ids), False))
        for shot in shots:
            self._check_names(task, shot)
            parts += self._parts(task, shot, task.inputs, False, text_dropout, rng)
            parts += self._parts(task, shot, task.outputs, loss_on_shots, 0.0, rng)
        self._check_names(task, values)
        parts += self._parts(task, values, task.inputs, False, text_dropout, rng)
        parts += self._parts(task, values, task.outputs, True, 0.0, rng)
        sequence = self._join(parts)
        if guidance_form:
            if not task.guidance:
                raise SequenceError(f"task '{task.name}' has no guidance form")
            sequence = replace(sequence, tokens=self._without_condition(sequence))
        return sequence

    def prompt(
        self,
        task: str | Task,
        values: Mapping[str, Value],
        *,
        shots: Iterable[Mapping[str, Value]] = (),
        language: str | None = None,
        prompt: str | Sequence[int] | None = None,
        rng: random.Random | None = None,
        published: bool = False,
    ) -> Prompt:
        """What generation of a task starts from.

        The begin rows of the first output are part of the prompt, so the first drawn frame is content.

        Args:
            task: Name or row.
            values: The inputs of the task; values of outputs are ignored.
            shots: Complete examples that come first.
            language: Named in short prompts.
            prompt: Text or ids in place of the task's own prompt.
            rng: Draws the prompt; None: the first.
            published: The published drivers' convention: begin rows are left to the model, any id may be drawn, and
                an end counts only when all K ids agree.

        Raises:
            SequenceError: If an input is missing or out of range.
        """
        task = get_task(task)
        parts: list[tuple[Part | None, Tensor, Tensor, bool]] = []
        ids = self.text_ids(prompt) if prompt is not None else self.prompt_ids(task, language=language, rng=rng)
        if ids:
            parts.append((None, *self.text_rows(ids), False))
        for shot in shots:
            self._check_names(task, shot)
            parts += self._parts(task, shot, (*task.inputs, *task.outputs), False, 0.0, None)
        self._check_names(task, values)
        parts += self._parts(task, values, task.inputs, False, 0.0, None)
        begin, phases = self._phases(task, published)
        if not parts and begin is None:
            raise SequenceError(f"task '{task.name}' has no prompt to start from in the published convention")
        if begin is not None:
            parts.append((self.expand(task.outputs)[0], *begin, True))
        sequence = self._join(parts)
        return Prompt(
            task=task.name,
            tokens=sequence.tokens,
            mask=sequence.mask,
            guidance_tokens=self._without_condition(sequence) if task.guidance else None,
            phases=phases,
        )

    def concatenate(self, sequences: Sequence[TokenSequence]) -> TokenSequence:
        """Several examples as one long sequence (mid-training on multi-segment sequences)."""
        spans: list[Span] = []
        start = 0
        for sequence in sequences:
            spans += [replace(span, start=span.start + start, stop=span.stop + start) for span in sequence.spans]
            start += len(sequence)
        return TokenSequence(
            tokens=torch.cat([sequence.tokens for sequence in sequences]),
            mask=torch.cat([sequence.mask for sequence in sequences]),
            loss_mask=torch.cat([sequence.loss_mask for sequence in sequences]),
            spans=tuple(spans),
        )

    def collate(self, sequences: Sequence[TokenSequence], *, multiple_of: int = 1) -> TokenBatch:
        """Pad to the longest: audio columns with the reconstruction pad, text with its pad, masks 0."""
        longest = max(len(sequence) for sequence in sequences)
        longest = -(-longest // multiple_of) * multiple_of
        tokens = torch.empty(len(sequences), longest, self.columns, dtype=torch.int64, device="cpu")
        tokens[..., :-1] = self.audio.fine.pad + self.audio.fine_shift
        tokens[..., -1] = self.text.text_pad
        mask = torch.zeros(tokens.shape, dtype=torch.bool, device="cpu")
        loss_mask = torch.zeros(tokens.shape, dtype=torch.bool, device="cpu")
        for row, sequence in enumerate(sequences):
            tokens[row, : len(sequence)] = sequence.tokens
            mask[row, : len(sequence)] = sequence.mask
            loss_mask[row, : len(sequence)] = sequence.loss_mask
        return TokenBatch(
            tokens=tokens,
            mask=mask,
            loss_mask=loss_mask,
            lengths=torch.tensor([len(sequence) for sequence in sequences], device="cpu"),
            spans=tuple(sequence.spans for sequence in sequences),
        )

    def ids_to_codes(self, phase: Phase, ids: Tensor) -> Tensor:
        """Generated audio ids (n, K) to codes (K, T).

        Raises:
            SequenceError: If an id is no code (only the published loop can draw such).
        """
        if phase.published:
            ids = ids[1:]  # the drawn begin frame
        codes = ids - phase.offset
        size = self._frames(phase.kind)[3].codebook_size
        if codes.numel() and not phase.published and (int(codes.min()) < 0 or int(codes.max()) >= size):
            raise SequenceError(f"generated {phase.kind} ids leave the codebook; the model may be damaged")
        return codes.T.contiguous()

    def ids_to_text(self, ids: Sequence[int]) -> str:
        """Generated text ids to text; bytes that make no character are left out."""
        if self.tokenizer is None:
            raise SequenceError("the builder has no tokenizer to decode text")
        return self.tokenizer.decode(ids).replace("\ufffd", "").strip()

    # -- inside -----------------------------------------------------------------------------------------------------

    def _parts(
        self,
        task: Task,
        values: Mapping[str, Value],
        parts: tuple[Part, ...],
        target: bool,
        dropout: float,
        rng: random.Random | None,
    ) -> list[tuple[Part | None, Tensor, Tensor, bool]]:
        rows: list[tuple[Part | None, Tensor, Tensor, bool]] = []
        for part in self.expand(parts):
            if part.value not in values:
                if part.optional:
                    continue
                raise SequenceError(
                    f"task '{task.name}' needs the value '{part.value}'; it takes {', '.join(task.values)}"
                )
            value = values[part.value]
            if part.kind == "text":
                rows.append((part, *self._wrapped_text(part, value, dropout, rng), target))
            else:
                rows.append((part, *self.codes_to_rows(part.kind, self._codes(part, value)), target))
        return rows

    def _wrapped_text(
        self, part: Part, value: Value, dropout: float, rng: random.Random | None
    ) -> tuple[Tensor, Tensor]:
        if not isinstance(value, str | Sequence) or isinstance(value, tuple):
            raise SequenceError(f"'{part.value}' must be text or a list of ids, got {type(value).__name__}")
        ids = self.text_ids(value, dropout=dropout if rng is not None else 0.0, rng=rng)
        if part.tag is not None:
            begin, end = self.text.tag(part.tag)
            ids = [begin, *ids, end]
        return self.text_rows(ids)

    def _check_names(self, task: Task, values: Mapping[str, Value]) -> None:
        unknown = [name for name in values if name not in task.values]
        if unknown:
            raise SequenceError(f"task '{task.name}' has no value '{unknown[0]}'; it takes {', '.join(task.values)}")

    def _join(self, parts: list[tuple[Part | None, Tensor, Tensor, bool]]) -> TokenSequence:
        spans: list[Span] = []
        start = 0
        for part, tokens, _, target in parts:
            kind, value = ("prompt", "prompt") if part is None else (part.kind, part.value)
            spans.append(Span(kind, value, start, start + tokens.shape[0], target))
            start += tokens.shape[0]
        mask = torch.cat([part[2] for part in parts])
        target = torch.cat([torch.full((part[2].shape[0], 1), part[3], device="cpu") for part in parts])
        tokens = torch.cat([part[1] for part in parts])
        return TokenSequence(tokens, mask, mask & target, tuple(spans))

    def _without_condition(self, sequence: TokenSequence) -> Tensor:
        """Tokens with everything that is not predicted replaced by padding, same length, same mask.

        Source: the guidance form of ARCHITECTURE section 2. Released weights: the reconstruction pad is not shifted.
        """
        tokens = sequence.tokens.clone()
        for span in sequence.spans:
            if span.target:
                continue
            rows = tokens[span.start : span.stop]
            if span.kind in ("prompt", "text"):
                rows[:, -1] = self.text.text_pad
            else:
                _, _, shift, stream = self._frames(span.kind)
                rows[:, :-1] = stream.pad + (shift if self.audio.shift_voice_ids else 0)
        return tokens

    def _begin_rows(self, part: Part) -> tuple[Tensor, Tensor]:
        """Rows in front of a generated part's content."""
        if part.kind == "text":
            tag = [] if part.tag is None else [self.text.tag(part.tag)[0]]
            return self.text_rows([*tag, self.text.bos])
        return self.audio_rows(self._frame(self._frames(part.kind)[0]))

    def _end_rows(self, part: Part) -> tuple[Tensor, Tensor]:
        """Rows behind a generated part's content."""
        if part.kind == "text":
            tag = [] if part.tag is None else [self.text.tag(part.tag)[1]]
            return self.text_rows([self.text.eos, *tag])
        return self.audio_rows(self._frame(self._frames(part.kind)[1]))

    def _phases(self, task: Task, published: bool) -> tuple[tuple[Tensor, Tensor] | None, tuple[Phase, ...]]:
        """Begin rows of the first output (None: left to the model) and the phases of all outputs."""
        phases, outputs = [], self.expand(task.outputs)
        for part, following in zip(outputs, (*outputs[1:], None), strict=True):
            links = [self._end_rows(part)]
            if following is not None and not published:
                links.append(self._begin_rows(following))
            low, high, eos, offset = self._range(part, published)
            special = sorted(self.text.ids() - {self.text.eos})
            phases.append(
                Phase(
                    kind=part.kind,
                    value=part.value,
                    low=low,
                    high=high,
                    eos=eos,
                    forbidden=tuple(special) if part.kind == "text" and not published else (),
                    link_tokens=torch.cat([rows for rows, _ in links]),
                    link_mask=torch.cat([mask for _, mask in links]),
                    offset=offset,
                    hop_length=0 if part.kind == "text" else self._frames(part.kind)[3].hop_length,
                    published=published,
                )
            )
        return (None if published else self._begin_rows(outputs[0])), tuple(phases)

    def _range(self, part: Part, published: bool) -> tuple[int, int, int, int]:
        """Lowest allowed id, one behind the highest, end id, offset."""
        if part.kind == "text":
            size = self.tokenizer.vocab_size if self.tokenizer is not None else -1
            return 0, size, self.text.eos, 0
        _, end, offset, stream = self._frames(part.kind)
        if published:
            return offset, self.audio.size, end, offset
        return offset, offset + stream.codebook_size, end, offset

    def _codes(self, part: Part, value: Value) -> Tensor:
        """Codes (K, T) of one part from any accepted form of audio."""
        names = [stream.name for stream in self.audio.streams]
        name = self._frames(part.kind)[3].name
        if isinstance(value, Tensor):
            if part.kind != "voice" and len(names) > 1:
                raise SequenceError(f"'{part.value}' needs {' and '.join(names)} codes, got one tensor")
            return value
        if isinstance(value, AudioCodes):
            if len(value) != 1:
                raise SequenceError(f"'{part.value}' must hold one recording, got a batch of {len(value)}")
            if name not in value.streams:
                raise SequenceError(f"'{part.value}' has the streams {', '.join(value.streams)}, not '{name}'")
            return value[name][0]
        if isinstance(value, tuple) and len(value) == len(names):
            chosen = value[names.index(name)]
            if isinstance(chosen, Tensor):
                return chosen
        raise SequenceError(f"'{part.value}' must be audio codes, got {type(value).__name__}")


def voice_codes(codes: Tensor, rng: random.Random | None = None) -> Tensor:
    """Cut codes (K, T) of the last stream to a voice prompt of at most 3 s: at random with ``rng``, else its start."""
    spare = codes.shape[-1] - VOICE_FRAMES
    start = rng.randint(0, spare) if rng is not None and spare > 0 else 0
    return codes[:, start : start + VOICE_FRAMES]
