"""Beam search: the text that a model finds likeliest for one input, or for several renderings of it at once.

Renderings are prompts that say the same in other rows, such as one recording encoded from different instants on: what
one of them garbles, the others often hold. Every rendering reads the same hypothesis, and the mean of their
probabilities decides how it goes on.

Choice: a loop of its own beside `engine.session`, because hypotheses move between cache rows and nothing is drawn,
streamed or admitted midway; prefill, model step and results are the engine's.

Shapes: R requests, W hypotheses each, H renderings, V text ids, P = R x W x H rows of the cache, in that
order.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from uniaudio2.engine.cancel import check_cancelled
from uniaudio2.engine.guards import repeats, without_repeats
from uniaudio2.engine.request import End, GenerationRequest, GenerationResult, finished_part
from uniaudio2.engine.runner import ModelRunner, prefill
from uniaudio2.engine.sampling import GenerationError
from uniaudio2.lm.model import LMCache
from uniaudio2.sequence import Phase, Prompt


class _Hypothesis(NamedTuple):
    """The beginning of a text."""

    ids: list[int]
    total: float  # log probability, nats


class _Finished(NamedTuple):
    """A whole text."""

    end: End
    score: float  # nats per id, the end included
    ids: list[int]


_PREFERENCE: tuple[End, ...] = ("length", "loop", "end")  # the last is taken first


class _Step(NamedTuple):
    """How a hypothesis goes on: the old one it continues, the id, the log probability of both."""

    source: int
    token: int
    total: float


@dataclass
class _Search:
    """Hypotheses of one request, likeliest first."""

    phase: Phase
    limit: int
    beams: int
    loop_guard: bool
    live: list[_Hypothesis] = field(default_factory=lambda: [_Hypothesis([], 0.0)])
    texts: list[_Finished] = field(default_factory=list)
    done: bool = False
    empty_probability: float = 0.0  # of the end in the place of the first id

    def __post_init__(self) -> None:
        self.done = self.limit == 0

    def extend(self, candidates: Iterable[_Step]) -> list[_Step]:
        """Go on with the best candidates (they come likeliest first); returns those that were taken.

        A text ends where its end is among the likeliest W candidates. A loop ends there too, in the place of a
        hypothesis: every round is likelier than the one before, so that it would win.
        """
        taken: list[_Step] = []
        looped = 0
        for rank, step in enumerate(candidates):
            if len(taken) + looped == self.beams or math.isinf(step.total):
                break
            ids = [*self.live[step.source].ids, step.token]
            if step.token == self.phase.eos:
                if rank < self.beams:
                    self.texts.append(_Finished("end", step.total / len(ids), ids[:-1]))
            elif self.loop_guard and repeats(ids):
                self.texts.append(_Finished("loop", step.total / len(ids), without_repeats(ids)))
                looped += 1
            else:
                taken.append(step)
        self.live = [_Hypothesis([*self.live[step.source].ids, step.token], step.total) for step in taken]
        if self.live and len(self.live[0].ids) == self.limit:
            self.texts += [_Finished("length", total / len(ids), ids) for ids, total in self.live]
            self.live = []
        ended = [text.score for text in self.texts if text.end == "end"]
        self.done = not self.live or (
            len(ended) >= self.beams and max(ended) >= self.live[0].total / len(self.live[0].ids)
        )
        return taken

    def advance(self, candidates: Iterable[_Step]) -> list[_Step]:
        """`extend`, filled up to W steps, of which those that lead nowhere cannot win."""
        taken = [] if self.done else self.extend(candidates)
        return taken + [_Step(0, self.phase.eos, -math.inf)] * (self.beams - len(taken))

    def best(self) -> _Finished:
        """A text that ended by itself, else one cut where it loops, else at its limit; of several the best per id.

        Choice: the score counts per id, so that long texts are not at a disadvantage; on sentences of no test it
        makes no difference.
        """
        nothing = _Finished("length", -math.inf, [])
        return max(self.texts, key=lambda text: (_PREFERENCE.index(text.end), text.score), default=nothing)


@torch.inference_mode()
def beam_search(
    engine: ModelRunner,
    requests: Sequence[GenerationRequest],
    *,
    renderings: Sequence[Sequence[Prompt]] | None = None,
    beams: int = 4,
) -> list[GenerationResult]:
    """Find the likeliest text for each request; with one hypothesis and one rendering that is greedy generation.

    A search ends when it has finished as many texts as it follows hypotheses and none that still goes on is likelier
    per id. The host reads every step, and all requests run together: R x W x H cache rows.

    Args:
        engine: Model and sequence builder.
        requests: Prompts that generate one text each; limits of text count, sampling does not.
        renderings: For each request further prompts that its text must suit as well, equally many for all.
        beams: Hypotheses that are followed at once, W.

    Returns:
        Results in the order of the requests.

    Raises:
        GenerationError: If a request generates anything but one text, the renderings do not fit, or something is longer
            than the model allows.
    """
    prompts = _all_prompts(requests, renderings, beams)
    searches = [_new_search(engine, request, each, beams) for request, each in zip(requests, prompts, strict=True)]
    if searches:
        with engine.threads():
            _run(engine, requests, searches, prompts)
    return [_result(engine, request, search) for request, search in zip(requests, searches, strict=True)]


def _run(
    engine: ModelRunner,
    requests: Sequence[GenerationRequest],
    searches: Sequence[_Search],
    prompts: Sequence[Sequence[Prompt]],
) -> None:
    """Extend all searches until each is done."""
    model, device = engine.model, engine.model.device
    beams, count, size = searches[0].beams, len(prompts[0]), model.config.text_vocab_size
    flat = [prompt for each in prompts for prompt in each]
    steps = max(search.limit for search in searches)
    shortest, longest = min(map(len, flat)), max(map(len, flat))
    rows = torch.arange(len(flat) * beams, device=device).view(len(requests), beams, count)
    first = torch.arange(len(flat), device=device).view(len(requests), 1, count).expand_as(rows).flatten()
    cache = _prefilled(engine, flat, first, longest + steps)
    tokens, mask = (
        torch.stack([getattr(prompt, name)[-1] for prompt in flat]).to(device)[first] for name in ("tokens", "mask")
    )
    positions = torch.tensor([len(prompt) - 1 for prompt in flat], device=device)[first]
    blocked, is_end = _masks(searches, size, device)
    least = torch.tensor([request.limit("text")[0] for request in requests], device=device)[:, None, None]
    totals = torch.full((len(requests), beams), -math.inf, dtype=torch.float32, device=device)
    totals[:, 0] = 0.0

    for step in range(steps):
        check_cancelled()
        hidden = engine.model_step(
            tokens[:, None], mask[:, None], cache, positions[:, None], length=longest + step, exact=False, experts=False
        )[:, 0]
        logits = model.text_head(hidden).float().view(len(requests), beams, count, size)
        agreed = logits.log_softmax(dim=-1).logsumexp(dim=2) - math.log(count)
        if step == 0:
            for row, search in enumerate(searches):
                search.empty_probability = float(agreed[row, 0, search.phase.eos].exp())
        candidates = totals[:, :, None] + agreed.masked_fill(blocked | (is_end & (step < least)), -torch.inf)
        values, picks = candidates.flatten(1).topk(min(2 * beams, beams * size), dim=1)
        taken = [
            search.advance(_Step(pick // size, pick % size, value) for pick, value in zip(*row, strict=True))
            for search, *row in zip(searches, picks.tolist(), values.tolist(), strict=True)
        ]
        if all(search.done for search in searches):
            return
        source, ids = (
            torch.tensor([[getattr(one, name) for one in row] for row in taken], device=device)
            for name in ("source", "token")
        )
        totals = torch.tensor([[one.total for one in row] for row in taken], dtype=torch.float32, device=device)
        kept = rows.gather(1, source[:, :, None].expand(-1, -1, count)).flatten()
        # What the text attends to so far; the prompts' entries are the same in all hypotheses.
        cache.backbone.reorder(kept, shortest, longest + step)
        tokens, mask = torch.zeros_like(tokens), torch.zeros_like(mask)
        tokens[:, -1] = ids[:, :, None].expand(-1, -1, count).flatten()
        mask[:, -1] = True
        positions = positions + 1


def _all_prompts(
    requests: Sequence[GenerationRequest], renderings: Sequence[Sequence[Prompt]] | None, beams: int
) -> list[list[Prompt]]:
    """Every request's own prompt and its further renderings, once it is known that they go together."""
    if beams < 1:
        raise GenerationError(f"beams must be at least 1, got {beams}")
    further = renderings if renderings is not None else [()] * len(requests)
    if len(further) != len(requests) or len({len(others) for others in further}) > 1:
        raise GenerationError("all requests of a beam search need the same number of renderings")
    prompts = [[request.prompt, *others] for request, others in zip(requests, further, strict=True)]
    if any(prompt.task != each[0].task for each in prompts for prompt in each):
        raise GenerationError("renderings must be prompts of their request's task")
    return prompts


def _masks(searches: Sequence[_Search], size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids that a text must not hold, and those that end it, each (R, 1, V)."""
    blocked, is_end = torch.zeros(2, len(searches), 1, size, dtype=torch.bool, device=device)
    for row, search in enumerate(searches):
        blocked[row, 0, [token for token in search.phase.forbidden if token < size]] = True
        is_end[row, 0, search.phase.eos] = True
    return blocked, is_end


def _result(engine: ModelRunner, request: GenerationRequest, search: _Search) -> GenerationResult:
    """The best text of a search."""
    text = search.best()
    ids = torch.tensor(text.ids, dtype=torch.int64, device="cpu")
    score = text.score if math.isfinite(text.score) else None
    scores = {"log_probability": score, "empty_probability": search.empty_probability}
    part = finished_part(engine.builder, search.phase, ids, text.end, **scores)
    return GenerationResult(request.prompt.task, (part,))


def _prefilled(engine: ModelRunner, prompts: Sequence[Prompt], rows: Tensor, max_positions: int) -> LMCache:
    """Caches that hold all rows of the prompts but the last; slot i those of prompt ``rows[i]``, (P,)."""
    model = engine.model
    cache = model.new_cache(len(prompts), max_positions, dtype=engine.cache_dtype)
    prefill(
        model,
        pad_sequence([prompt.tokens[:-1] for prompt in prompts], batch_first=True).to(model.device),
        pad_sequence([prompt.mask[:-1] for prompt in prompts], batch_first=True).to(model.device),
        cache,
        torch.arange(len(prompts), device=model.device),
        chunk=engine.prefill_chunk,
    )
    # Text after audio runs through the backbone alone: the experts' caches stay as they are.
    cache.backbone.resize(rows, max_positions)
    return cache


def _new_search(engine: ModelRunner, request: GenerationRequest, prompts: Sequence[Prompt], beams: int) -> _Search:
    """An empty search, once the request is known to fit."""
    phases = request.prompt.phases
    if len(phases) != 1 or not phases[0].is_text or request.guided:
        raise GenerationError(f"beam search makes one text without guidance, task '{request.prompt.task}' does not")
    limit = request.limit("text")[1]
    needed, most = max(map(len, prompts)) + limit, engine.model.config.max_positions
    if needed > most:
        raise GenerationError(
            f"prompt and text together may have {needed} positions, but the model is made for {most}; shorten the input"
        )
    return _Search(phases[0], limit, beams, request.loop_guard)
