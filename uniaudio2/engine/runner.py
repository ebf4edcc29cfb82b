"""What runs on the model: prompts into the caches, and the next frame or text id of many slots at once.

Shapes: L slots, n of them that make one kind of output, K codebooks, D width, V ids.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack

import torch
from torch import Tensor

from uniaudio2.devices import threads_for
from uniaudio2.engine.request import GenerationRequest
from uniaudio2.engine.sampling import GenerationError, Needs, guide
from uniaudio2.engine.state import Board
from uniaudio2.lm.cache import KVCache
from uniaudio2.lm.model import AudioLM, LMCache
from uniaudio2.lm.quantize import BLOCK_ROWS
from uniaudio2.sequence import Phase, SequenceBuilder


def _check_compiler(device: torch.device) -> None:
    """Raise a :class:`GenerationError` if ``torch.compile`` lacks what it needs here."""
    if device.type == "cpu" and not any(
        shutil.which(name) for name in (os.environ.get("CXX"), "g++", "clang++") if name
    ):
        raise GenerationError("compiling for a CPU needs a C++ compiler: install g++, or generate without compiling")
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise GenerationError("compiling for a GPU needs the package triton: install it, or generate without compiling")


def _compiled(function: Callable[..., Tensor], device: torch.device) -> Callable[..., Tensor]:
    """Compiled form of a step: any batch size and length share the code; a part that cannot be compiled is an error.

    Choice for a CPU: an intermediate result of more than six operations is written down, else a norm or an activation
    would be worked out again for every row of the matrix behind it, which halves the speed of 8-bit weights. Kernels
    carry names that a profiler shows, which costs nothing measurable.
    """
    limit = torch._dynamo.config.recompile_limit  # one variant or more per model, kind of batch and type
    torch._dynamo.config.recompile_limit = max(limit, 64)
    on_cpu: dict[str, str | int | bool | Callable[..., Any]] = {
        "realize_opcount_threshold": 6,
        "cpp.enable_kernel_profile": True,
    }
    return torch.compile(function, dynamic=True, fullgraph=True, options=on_cpu if device.type == "cpu" else None)


class RunnerSettings(TypedDict, total=False):
    """How a model generates; see `Engine`."""

    max_batch: int
    prefill_chunk: int
    cache_dtype: torch.dtype | None
    sync_every: int | None
    compile: bool
    cuda_graphs: bool | None


class ModelRunner:
    """A model with the settings that it generates with; see `Engine` for what they mean."""

    def __init__(self, model: AudioLM, builder: SequenceBuilder, **settings: Unpack[RunnerSettings]) -> None:
        max_batch, prefill_chunk = settings.get("max_batch", 16), settings.get("prefill_chunk", 256)
        sync_every, cuda_graphs = settings.get("sync_every"), settings.get("cuda_graphs")
        compile = settings.get("compile", False)
        if max_batch < 1 or prefill_chunk < 1:
            raise GenerationError("max_batch and prefill_chunk must be at least 1")
        on_gpu = model.device.type == "cuda"
        if cuda_graphs and not on_gpu:
            raise GenerationError(f"the model is on {model.device}: CUDA graphs need it on a CUDA device")
        self.model, self.builder = model, builder
        self.max_batch, self.prefill_chunk = max_batch, prefill_chunk
        self.cache_dtype = settings.get("cache_dtype")
        self.sync_every = sync_every if sync_every is not None else (8 if on_gpu else 1)
        self.cuda_graphs = (compile and on_gpu) if cuda_graphs is None else cuda_graphs
        self.compiled = compile
        self.model_step, self._read = model.step, model.depth.read
        if compile:
            _check_compiler(model.device)
            if not on_gpu:
                model.depth.store_heads_by_id()
            self.model_step, self._read = (_compiled(each, model.device) for each in (model.step, model.depth.read))

    def threads(self) -> AbstractContextManager[None]:
        """On how many threads of the CPU the steps of this model run; see `uniaudio2.devices.threads_for`."""
        return threads_for(self.model.config.backbone.width, self.model.device)

    @property
    def fixed_shapes(self) -> bool:
        """Whether all slots take part in a frame, so that its shapes stay when requests come and go."""
        return self.cuda_graphs

    def check(self, request: GenerationRequest) -> None:
        """Refuse what cannot be served.

        Raises:
            GenerationError: If the model is being trained, or prompt and limits together are longer than it allows.
        """
        if self.model.training:
            raise GenerationError("the model is in training mode; call model.eval() first")
        limit, length, most = self.model.config.max_positions, len(request.prompt), request.max_steps
        if length + most > limit:
            raise GenerationError(
                f"the prompt has {length} positions and up to {most} may follow, but the model is made for {limit}; "
                "shorten the input or lower the limits"
            )

    def window(self, phase: Phase) -> tuple[int, int]:
        """Audio ids that can be drawn in a part, first and one past the last, in whole blocks: no others need logits.

        Where the host does not see every frame it cannot tell the part: all ids.
        """
        size = self.model.config.audio.size
        if self.sync_every > 1:
            return 0, size
        start = min(phase.low, phase.eos) // BLOCK_ROWS * BLOCK_ROWS
        return start, min(-(-max(phase.high, phase.eos + 1) // BLOCK_ROWS) * BLOCK_ROWS, size)

    def codebook_logits(self, inputs: Tensor, codebook: int, cache: KVCache, window: tuple[int, int]) -> Tensor:
        """Logits of the ids in ``window`` (and up to a block more) of one codebook, see :meth:`DepthDecoder.read`."""
        positions = torch.full((inputs.shape[0], 1), codebook, device=inputs.device)
        # Compiled code must not depend on the codebook; otherwise attention over fewer positions is cheaper.
        length = None if self.compiled else codebook + 1
        return self._read(inputs, self.model.depth.head(codebook, *window), positions, cache, length=length)


def prefill(model: AudioLM, tokens: Tensor, mask: Tensor, cache: LMCache, rows: Tensor, *, chunk: int = 256) -> None:
    """Fill the caches with prompts, hidden states only.

    Prompts shorter than the longest are padded behind; what padding writes is overwritten before it is attended to.

    Args:
        model: The language model.
        tokens: (n, S, K+1).
        mask: Bool, (n, S, K+1).
        cache: Caches; positions 0..S-1 of ``rows`` are filled.
        rows: (n,) cache rows.
        chunk: Most positions per step.
    """
    length, cache = tokens.shape[1], cache.pick(rows.tolist())
    heard = False  # audio seen so far; before it the experts' entries are zero, see LMCache.forget_experts
    for start in range(0, length, chunk):
        stop = min(start + chunk, length)
        heard = heard or bool(mask[:, start:stop, 0].any())
        if not heard:
            cache.forget_experts(start, stop)
        model.step(
            tokens[:, start:stop],
            mask[:, start:stop],
            cache,
            torch.arange(start, stop, device=tokens.device).expand(tokens.shape[0], -1),
            length=stop,
            experts=heard,
        )


@dataclass(frozen=True)
class Group:
    """Slots that make the same kind of output."""

    slots: Tensor  # (n,)
    rows: Tensor  # (n + guided,) their hidden states among those of the step, conditional ones first
    owner: Tensor  # (n + guided,) index into slots
    pair: Tensor | None  # (n,) see :func:`guide`
    scale: Tensor | None  # (n,)
    needs: Needs
    cache: KVCache | None = None  # local decoder's cache of audio slots


def decode_frame(runner: ModelRunner, hidden: Tensor, group: Group, board: Board, window: tuple[int, int]) -> Tensor:
    """Draw the K ids of one audio frame per slot.

    The first codebook decides the end of a part: when it draws the end id, the others follow. Inside a part only codes
    of its stream can be drawn. Source of the steps: ARCHITECTURE section 1.4; the range rules repair section 5.1, 11.

    Args:
        runner: Its model draws.
        hidden: (n + guided, D).
        group: Audio slots.
        board: State.
        window: First and one past the last id that may be drawn by any slot.

    Returns:
        (n, K).
    """
    assert group.cache is not None
    model, slots, count = runner.model, group.slots, group.slots.shape[0]
    num_codebooks = model.config.audio.num_codebooks
    tokens = torch.arange(*window, device=hidden.device)
    now = slots, board.phase[slots]
    low, high, eos = (table[now][:, None] for table in (board.low, board.high, board.eos))
    inside = (tokens >= low) & (tokens < high)
    frames, published = board.count[slots], board.published[slots]
    full = frames >= board.most[now]
    may_end = (frames >= board.least[now]) | published
    is_end = tokens == eos
    first = (inside & ~(full & ~published)[:, None]) | (is_end & (may_end | full)[:, None])
    numbers, sampler = board.draws(slots), board.sampler(slots, group.needs)
    ended = torch.zeros(count, dtype=torch.bool, device=hidden.device)
    inputs, drawn = hidden, []
    for codebook in range(num_codebooks):
        logits = runner.codebook_logits(inputs, codebook, group.cache, window).float()
        logits = guide(logits[:, : tokens.shape[0]], group.pair, group.scale, count)
        logits = logits.masked_fill(~(first if codebook == 0 else inside), -torch.inf)
        ids = window[0] + sampler.draw(logits, numbers[:, codebook])
        if codebook == 0:
            ended = (ids == eos[:, 0]) & ~published
        else:
            ids = torch.where(ended, eos[:, 0], ids)
        drawn.append(ids)
        if codebook + 1 < num_codebooks:
            inputs = model.embed_codebook(ids[group.owner], codebook)
    frame = torch.stack(drawn, dim=1)
    return torch.where((full & published)[:, None], eos, frame)


def decode_text(model: AudioLM, hidden: Tensor, group: Group, board: Board) -> Tensor:
    """Draw one text id per slot, (n,), and keep what is likely; special ids but the end are never drawn.

    Args:
        model: The language model.
        hidden: (n + guided, D).
        group: Text slots.
        board: State.
    """
    slots = group.slots
    logits = guide(model.text_head(hidden).float(), group.pair, group.scale, slots.shape[0])
    now, frames = (slots, board.phase[slots]), board.count[slots]
    eos, early, full = board.eos[now], frames < board.least[now], frames >= board.most[now]
    is_end = torch.arange(logits.shape[-1], device=hidden.device) == eos[:, None]
    allowed = logits.masked_fill(board.blocked[slots] | (is_end & early[:, None]), -torch.inf)
    ids = board.sampler(slots, group.needs).draw(allowed, board.draws(slots)[:, -1])
    scores = logits.gather(1, torch.stack((ids, eos), dim=1)) - logits.logsumexp(dim=-1, keepdim=True)
    said, ended = scores.unbind(dim=1)
    counts = ~full & (board.link[slots] < 0) & ~board.done[slots]
    board.log_probability[slots] += torch.where(counts, said, 0.0)
    empty = board.empty_probability[slots]
    board.empty_probability[slots] = torch.where(counts & (frames == 0), ended.exp(), empty)
    return torch.where(full, eos, ids)
