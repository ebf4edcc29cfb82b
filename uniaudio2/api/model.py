"""``UniAudio2``, what a user holds: a loaded model with a method for everything that it does.

Each method checks what it is given and hands over to the file that does the work: `listen`, `speak` or `run`.

Shapes: ``N`` samples. A waveform is (1, N), mono, 24 kHz, in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, Unpack, cast, overload

import numpy as np
from torch import Tensor

from uniaudio2.api.core import Core, check_decoding
from uniaudio2.api.inputs import MAX_SAMPLE_RATE, AudioInput, as_blocks, open_recording
from uniaudio2.api.listen import CaptionOptions, Listening, Progress, TranscribeOptions, describe
from uniaudio2.api.live import listen
from uniaudio2.api.request import Effort, Sampling, check_sampling, search_effort
from uniaudio2.api.results import AudioResult, LiveResult, SpeechResult, TextResult
from uniaudio2.api.run import Output, Shot, Value, run_row
from uniaudio2.api.speak import Speaking, generate_sound, plan, speak, stream_parts
from uniaudio2.audio import SAMPLE_RATE
from uniaudio2.checks import check_number, check_optional
from uniaudio2.tasks import Task, get_task
from uniaudio2.text import check_language

Recordings: TypeAlias = Sequence[AudioInput]


class UniAudio2(Core):
    """Codec, language model and tokenizer of one model folder, ready to use.

    ``**sampling`` is everywhere ``seed``, ``temperature``, ``top_k``, ``top_p`` and ``guidance``; None is the model's
    default for the task, and the same seed gives the same result.
    """

    @overload
    def transcribe(self, audio: AudioInput, **options: Unpack[TranscribeOptions]) -> TextResult: ...

    @overload
    def transcribe(self, audio: Recordings, **options: Unpack[TranscribeOptions]) -> list[TextResult]: ...

    def transcribe(
        self,
        audio: AudioInput | Recordings,
        *,
        language: str | None = None,
        sample_rate: int = SAMPLE_RATE,
        max_chunk_s: float | None = None,
        batch_size: int = 8,
        beams: int | None = None,
        shifts: int | None = None,
        word_timestamps: bool = False,
        progress: Progress | None = None,
        **sampling: Unpack[Sampling],
    ) -> TextResult | list[TextResult]:
        """Write down what is said.

        Args:
            audio: A file, or samples; or a list of them, worked on together. Long recordings are divided at pauses.
            language: ``en``, ``zh`` or ``yue``, in whose script the text is then; None lets the model find out, anew
                where the language changes at a pause.
            sample_rate: Rate of samples given as such, Hz.
            max_chunk_s: Longest piece worked on at once; None takes the model's own.
            batch_size: Pieces worked on together.
            beams: Hypotheses that are followed at once; None takes the model's own number (nano: 4), 1 is quickest.
            shifts: Shifted encodings of each piece, for one text that suits all (test-time augmentation); None takes
                the model's own number (nano: 3), 1 is quickest.
            word_timestamps: Give every segment its ``words`` with times, see `words.time_words`.
            progress: Called for every piece as soon as it is finished, see `listen.Progress`.
            **sampling: A transcript that is drawn is one draw, without beams and shifts.

        Returns:
            One result, or a list of them for a list. ``segments`` has times.

        Raises:
            ValueError: If audio, language or an option cannot be used.
        """
        how = self._hearing(language, max_chunk_s, batch_size, beams, shifts, sampling, words=word_timestamps)
        return self._describe(audio, sample_rate, how, sampling, progress)

    def listen(
        self,
        chunks: Iterable[Tensor | np.ndarray[Any, Any]],
        *,
        language: str | None = None,
        sample_rate: int = SAMPLE_RATE,
        max_chunk_s: float | None = None,
        every_s: float | None = 1.0,
        beams: int | None = None,
        shifts: int | None = None,
        word_timestamps: bool = False,
        **sampling: Unpack[Sampling],
    ) -> Iterator[LiveResult]:
        """Write down what is said while it is said.

        A piece is finished when a second of silence follows it, or when it is as long as one may be (``max_chunk_s``
        and .2 s, nano: 10.2 s). From then on its text stays: ``text`` only grows. Of the piece that is being spoken
        there are ``agreed`` and ``guess``, see `LiveResult`.

        The last ``result`` is what `transcribe` gives of all chunks joined, but for rounding where it works on several
        pieces together; at another rate than 24 kHz they are resampled chunk by chunk, which differs by rounding too.
        Unlike a file, chunks are neither scaled where they exceed full scale nor searched for channels that cancel.

        Args:
            chunks: Consecutive samples in [-1, 1], such as from a microphone: (N,), (1, N) or (channels, N), of any N.
            language: As for `transcribe`, like the others that it has.
            sample_rate: Of the chunks, Hz.
            max_chunk_s: Longest piece.
            every_s: Seconds of audio after which the piece that is being spoken is heard again; None: not at all.
            beams: Of finished pieces.
            shifts: Of finished pieces.
            word_timestamps: Of finished pieces.
            **sampling: Of finished pieces.

        Raises:
            ValueError: At once if an option cannot be used, later if a chunk cannot, or if no audio came.
        """
        how = self._hearing(language, max_chunk_s, 8, beams, shifts, sampling, words=word_timestamps)
        check_sampling(sampling)
        check_optional("every_s", every_s, 0.1)
        check_number("sample_rate", sample_rate, 1, MAX_SAMPLE_RATE, whole=True)
        _ = self.parts
        self.facts.check_trained(how.row)
        return listen(self, as_blocks(chunks, sample_rate), how, sampling, every_s)

    def _hearing(
        self,
        language: str | None,
        max_chunk_s: float | None,
        batch_size: int,
        beams: int | None,
        shifts: int | None,
        sampling: Sampling,
        *,
        words: bool = False,
    ) -> Listening:
        """How speech is turned into text, checked."""
        code = check_language(language) if language is not None else None
        row = get_task("yue_asr" if code == "yue" else "asr")
        effort = search_effort(self.facts.generation, beams, shifts, sampling)
        chunk_s = self.facts.generation.max_chunk_s if max_chunk_s is None else max_chunk_s
        return Listening(row, code, chunk_s, batch_size, effort, words=words)

    @overload
    def caption(self, audio: AudioInput, **options: Unpack[CaptionOptions]) -> TextResult: ...

    @overload
    def caption(self, audio: Recordings, **options: Unpack[CaptionOptions]) -> list[TextResult]: ...

    def caption(
        self,
        audio: AudioInput | Recordings,
        *,
        sample_rate: int = SAMPLE_RATE,
        max_chunk_s: float | None = None,
        batch_size: int = 8,
        progress: Progress | None = None,
        **sampling: Unpack[Sampling],
    ) -> TextResult | list[TextResult]:
        """Say in words what is heard; arguments and result as for `transcribe`, without language, beams and shifts.

        The captions of a long recording's pieces are joined, each said once.
        """
        config = self.facts.generation
        chunk_s = config.max_chunk_s if max_chunk_s is None else max_chunk_s
        how = Listening(get_task("audio_caption"), None, chunk_s, batch_size, Effort(), config.silence_caption)
        return self._describe(audio, sample_rate, how, sampling, progress)

    def _describe(
        self,
        audio: AudioInput | Recordings,
        sample_rate: int,
        how: Listening,
        sampling: Sampling,
        progress: Progress | None,
    ) -> TextResult | list[TextResult]:
        """Both ways from audio to text, for one recording or a list of them."""
        _ = self.parts
        self.facts.check_trained(how.row)
        given = cast("Recordings", audio if isinstance(audio, list | tuple) else [audio])
        results = describe(self, [open_recording(one, sample_rate) for one in given], how, sampling, progress)
        return results if isinstance(audio, list | tuple) else results[0]

    def speak(
        self,
        text: str,
        *,
        voice: AudioInput | None = None,
        language: str | None = None,
        sample_rate: int = SAMPLE_RATE,
        batch_size: int = 8,
        steps: int | None = None,
        best_of: int | None = None,
        speed: float = 1.0,
        **sampling: Unpack[Sampling],
    ) -> SpeechResult:
        """Read a text aloud, sentence by sentence in one voice.

        Args:
            text: Up to 100 000 characters.
            voice: About 3 s of the voice to speak with, or the name of one of ``voices``; None is the house voice of
                the language.
            language: ``en``, ``zh`` or ``yue``; None finds out, sentence by sentence.
            sample_rate: Rate of ``voice`` where it is given as samples, Hz.
            batch_size: Sentences worked on together.
            steps: Of the decoder that makes the wave.
            best_of: Attempts per sentence, of which the one is kept that the model hears best and whose length is
                usual; None takes the model's own number (nano: 4), 1 is quickest.
            speed: 0.25 (a quarter as fast) to 4, at the same pitch; ``times_s`` are those of the result.
            **sampling: See the class.

        Raises:
            ValueError: If there is nothing to say, or the language, the voice or an option cannot be used.
        """
        how = Speaking.of(self, voice, sample_rate, batch_size, steps, best_of, sampling, speed)
        return speak(self, text, language, how)

    def stream(
        self,
        text: str,
        *,
        voice: AudioInput | None = None,
        language: str | None = None,
        sample_rate: int = SAMPLE_RATE,
        steps: int | None = None,
        best_of: int | None = None,
        speed: float = 1.0,
        first_words: int | None = None,
        **sampling: Unpack[Sampling],
    ) -> Iterator[Tensor]:
        """Like `speak`, but yields waveforms (1, n) as soon as they can be heard.

        Unless ``best_of`` says otherwise, one attempt is made at a sentence, and its beginning is heard before its end
        is made: first a quarter of a second, then ever longer pieces. With ``best_of`` above 1 the best attempt comes
        whole, with its pause.

        ``first_words`` is for whoever cannot wait: a first sentence of more words is spoken in two, and the first of
        them, with at most so many words, is heard sooner, since the model thinks over less before it makes sound. It
        ends at a comma where there is one, else where a phrase does, and then sounds more like an end than it should.

        Without ``first_words`` and joined, the pieces are what `speak` gives with the same seed, ``best_of`` and
        ``batch_size=1``: to the bit for several attempts; for one they have the same codes and length, but are decoded
        in shorter windows (nano: log-mel distance at most .1, STOI at least .9). What cannot be used is refused at
        once. Closing the iterator stops what is being made.
        """
        how = Speaking.of(self, voice, sample_rate, 1, steps, 1 if best_of is None else best_of, sampling, speed)
        return stream_parts(self, plan(self, text, language, first_words), how)

    def generate_sound(
        self,
        text: str,
        *,
        duration_s: float | None = None,
        steps: int | None = None,
        **sampling: Unpack[Sampling],
    ) -> AudioResult:
        """Make the sound that a text describes.

        Args:
            text: Such as "a dog barking".
            duration_s: Length in seconds, to the sample; None leaves it to the model.
            steps: Of the decoder that makes the wave.
            **sampling: See the class.

        Raises:
            ValueError: If the text is empty, or the duration or an option is out of the model's range.
        """
        return generate_sound(self, text, duration_s, steps, sampling)

    def run(
        self,
        task: str | Task,
        values: Mapping[str, Value],
        *,
        shots: Sequence[Shot] = (),
        language: str | None = None,
        max_duration_s: float | None = None,
        sample_rate: int = SAMPLE_RATE,
        steps: int | None = None,
        untrained: bool = False,
        **sampling: Unpack[Sampling],
    ) -> dict[str, Output]:
        """Run any row of the task table.

        Args:
            task: Name of the row, or a row of your own.
            values: The row's inputs by name: text, a file (audio or codes), samples, or `AudioCodes`.
            shots: Examples of the task that come first, in order: pairs of inputs and outputs. Each side is a mapping
                of names to values as above, or the value alone where the row needs only one; None where it needs none.
            language: Named in the prompt where the model was trained so.
            max_duration_s: Longest audio to make, seconds; None derives it from the input.
            sample_rate: Rate of samples given as such, Hz.
            steps: Of the decoder that makes the wave.
            untrained: Run a row also that the model was not trained for.
            **sampling: See the class.

        Returns:
            The row's outputs by name: text, `AudioResult`, or `AudioCodes` where only reasoning codes are made.

        Raises:
            ValueError: If the task or a value is unknown, an input is missing or cannot be used, or the model was not
                trained for the task.
        """
        row = get_task(task)
        if not untrained:
            self.facts.check_trained(row)
        code = check_language(language) if language is not None else row.language
        check_sampling(sampling)
        check_decoding(steps, sampling.get("seed"))
        check_optional("max_duration_s", max_duration_s, 0.0, above=True)
        return run_row(self, row, values, shots, code, max_duration_s, sample_rate, steps, sampling)
