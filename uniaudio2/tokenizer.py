"""Text to ids and back.

Knows nothing of sequences or models. A text tokenizer is a ``tokenizer.json`` of the ``tokenizers`` library: a
byte-level BPE trained here for the small models, or the Llama file for the published ones.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from uniaudio2.errors import UserError
from uniaudio2.files import replacing
from uniaudio2.vocabulary import OWN_TEXT_TOKENS, TAGS, AudioTokens, AudioVocabulary, TextTokens

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["TAGS", "AudioTokens", "AudioVocabulary", "TextTokenizer", "TextTokens", "TokenizerError"]


_NOT_OF = {"en": re.compile("[\u00e3-\u00e9\u00ef\u00f0]"), "zh": re.compile("[A-Za-z]"), "yue": re.compile("[A-Za-z]")}
"""What no token of a transcript in a language holds, in the byte alphabet of byte-level BPE, where a byte from A1 on is
the character of that number: the first bytes of Chinese characters; Latin letters."""


class TokenizerError(UserError):
    """A tokenizer file or an id that cannot be used."""


class TextTokenizer:
    """Byte-level BPE over a ``tokenizer.json``.

    Args:
        tokenizer: The loaded file.
        tokens: Ids of the special tokens.

    Raises:
        TokenizerError: If the special ids do not fit the file.
    """

    def __init__(self, tokenizer: Tokenizer, tokens: TextTokens = OWN_TEXT_TOKENS) -> None:
        self._tokenizer = tokenizer
        self.tokens = tokens
        self._outside: dict[str, tuple[int, ...]] = {}
        self._own = tokenizer.token_to_id("<bos>") is not None  # a file trained by :meth:`train`
        size = self.vocab_size
        if tokenizer.get_vocab_size(with_added_tokens=False) < 256:
            raise TokenizerError(f"the tokenizer has {size} ids, fewer than there are bytes; its file is not whole")
        if max(tokens.ids()) >= size:
            raise TokenizerError(f"the tokenizer has {size} ids but a special token is {max(tokens.ids())}")
        for field, written in tokens.names().items():
            found = tokenizer.token_to_id(written)
            if found is not None and found != getattr(tokens, field):
                raise TokenizerError(f"{written} is id {found} in the tokenizer but {getattr(tokens, field)} expected")

    @classmethod
    def load(cls, path: Path | str, tokens: TextTokens = OWN_TEXT_TOKENS) -> TextTokenizer:
        """Read a ``tokenizer.json``.

        Raises:
            TokenizerError: If the file is missing or is not a tokenizer.
        """
        from tokenizers import Tokenizer

        path = Path(path)
        if not path.is_file():
            raise TokenizerError(f"no tokenizer at {path}; a model folder needs its tokenizer.json")
        try:
            tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8"))
        except UnicodeDecodeError:
            raise TokenizerError(f"{path} is not a tokenizer.json: it is no text") from None
        except Exception as error:  # the library raises bare Exception
            raise TokenizerError(f"{path} is not a tokenizer.json: {str(error).splitlines()[0][:200]}") from error
        try:
            return cls(tokenizer, tokens)
        except TokenizerError as error:
            raise TokenizerError(f"{path}: {error}") from None

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> TextTokenizer:
        """Learn a byte-level BPE; special tokens take the first ids, then 256 bytes, then merges.

        Lower-casing and the like are the caller's job. A space is put before a text that starts with a Latin letter
        or digit, so that a word has the same ids at the start and inside of a text (Choice: small models must not
        learn each word twice).

        Args:
            texts: Lines of text.
            vocab_size: Ids in all.

        Raises:
            TokenizerError: If ``vocab_size`` has no room for the bytes and special tokens.
        """
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        special = list(OWN_TEXT_TOKENS.names().values())
        if vocab_size < len(special) + 256:
            raise TokenizerError(f"vocab_size must be at least {len(special) + 256}, got {vocab_size}")
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=special,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        tokenizer.train_from_iterator((_with_space(text) for text in texts), trainer)
        return cls(tokenizer, OWN_TEXT_TOKENS)

    def save(self, path: Path | str) -> None:
        """Write the ``tokenizer.json`` (whole or not at all)."""
        with replacing(path) as file:
            file.write(self._tokenizer.to_str().encode("utf-8"))

    @property
    def vocab_size(self) -> int:
        """Number of ids, special ones included."""
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

    def encode(
        self, text: str, *, special: bool = True, dropout: float = 0.0, rng: random.Random | None = None
    ) -> list[int]:
        """Text to ids, with begin and end of text unless ``special`` is False.

        Text that looks like a special token (``<eos>``) is encoded as plain characters.

        Args:
            text: Any text, may be empty.
            special: Put the begin id in front and the end id behind, as the published loader does.
            dropout: BPE dropout, the probability that a merge is skipped; for training only.
            rng: Source of randomness for ``dropout``; required then.
        """
        if dropout > 0.0:
            if rng is None:
                raise UserError("BPE dropout needs rng, a random.Random")
            ids = self._encode_with_dropout(text, dropout, rng)
        else:
            ids = []
            for piece in self._split_special(text):
                ids.extend(self._tokenizer.encode(piece, add_special_tokens=False).ids)
        return [self.tokens.bos, *ids, self.tokens.eos] if special else ids

    def decode(self, ids: Sequence[int]) -> str:
        """Ids to text: without special ids, outer spaces and a character that is cut off at the end.

        Other bytes that are no UTF-8 become U+FFFD.
        """
        special = self.tokens.ids()
        for index in ids:
            if not 0 <= index < self.vocab_size:
                raise TokenizerError(f"text id {index} is outside [0, {self.vocab_size})")
        return self._tokenizer.decode([index for index in ids if index not in special]).rstrip("\ufffd").strip()

    def outside_script(self, language: str) -> tuple[int, ...]:
        """Ids of tokens that a text in this language (``en``, ``zh``, ``yue``) cannot hold, special ones left out.

        English has no Chinese characters, Chinese no Latin letters; digits and punctuation are everybody's.
        """
        if language not in self._outside:
            wrong = _NOT_OF[language]
            tokens = self._tokenizer.get_vocab(with_added_tokens=False).items()
            special = self.tokens.ids()
            self._outside[language] = tuple(
                sorted(index for token, index in tokens if wrong.search(token) and index not in special)
            )
        return self._outside[language]

    def _split_special(self, text: str) -> list[str]:
        """Cut inside anything the file would read as a special token, so that users cannot inject one."""
        text = _with_space(text) if self._own else text
        if self._special_pattern is None or "<" not in text:
            return [text]
        pieces, start = [], 0
        for match in self._special_pattern.finditer(text):
            pieces.append(text[start : match.start() + 1])
            start = match.start() + 1
        return [*pieces, text[start:]]

    @cached_property
    def _special_pattern(self) -> re.Pattern[str] | None:
        written = [re.escape(token.content) for token in self._tokenizer.get_added_tokens_decoder().values()]
        return re.compile("|".join(written)) if written else None

    @cached_property
    def _merges(self) -> dict[tuple[str, str], int]:
        model = json.loads(self._tokenizer.to_str())["model"]
        pairs = (merge.split(" ", 1) if isinstance(merge, str) else merge for merge in model["merges"])
        return {(left, right): rank for rank, (left, right) in enumerate(pairs)}

    def _words(self, text: str) -> Iterator[str]:
        """Pieces that merges never cross, in the byte alphabet of the file."""
        for piece in self._split_special(text):
            if self._tokenizer.normalizer is not None:
                piece = self._tokenizer.normalizer.normalize_str(piece)
            if self._tokenizer.pre_tokenizer is None:
                raise TokenizerError("BPE dropout needs a tokenizer.json with a byte-level pre-tokenizer")
            for word, _ in self._tokenizer.pre_tokenizer.pre_tokenize_str(piece):
                yield word

    def _encode_with_dropout(self, text: str, dropout: float, rng: random.Random) -> list[int]:
        """BPE in which every possible merge is skipped with a probability, drawn anew at every step.

        Source: BPE-dropout (arXiv:1910.13267). Choice: written here because the library's own dropout draws from a
        generator that cannot be seeded, and training batches must be repeatable.
        """
        vocabulary = self._vocabulary
        ids: list[int] = []
        for word in self._words(text):
            symbols = list(word)
            while len(symbols) > 1:
                ranked = [
                    (self._merges[pair], index)
                    for index, pair in enumerate(pairwise(symbols))
                    if pair in self._merges and rng.random() >= dropout
                ]
                if not ranked:
                    break
                _, index = min(ranked)
                symbols[index : index + 2] = [symbols[index] + symbols[index + 1]]
            ids.extend(vocabulary[symbol] for symbol in symbols)
        return ids

    @cached_property
    def _vocabulary(self) -> dict[str, int]:
        return self._tokenizer.get_vocab(with_added_tokens=True)


def _with_space(text: str) -> str:
    """Put a space before a text that starts with a Latin letter, a digit or an apostrophe."""
    return f" {text}" if re.match(r"[A-Za-z0-9']", text) else text
