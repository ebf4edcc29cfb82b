"""Where every running request stands, as tensors beside the model, so that a frame needs no answer from the device.

Shapes: L slots, one per cache row; n of them; K codebooks; C steps that fit.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from uniaudio2.engine.request import MAX_LINK, MAX_PHASES, GenerationRequest
from uniaudio2.engine.sampling import Needs, Sampler


class Board:
    """One entry per slot in every tensor, changed in place: a recorded CUDA graph finds it where it was.

    A slot draws ids in its phase until the phase ends; then the rows that link to the next phase are fed one by one;
    after the last phase the slot is done. The partner of a guided request is a slot of its own, which stays done.
    """

    def __init__(
        self, slots: int, capacity: int, num_codebooks: int, device: torch.device, text_vocab_size: int = 0
    ) -> None:
        def make(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
            """Zeros for every slot."""
            return torch.zeros(slots, *shape, dtype=dtype, device=device)

        columns = num_codebooks + 1
        self.num_codebooks = num_codebooks
        self.device = device
        self.numbers = torch.arange(slots, device=device)
        self.owner, self.pair = self.numbers.clone(), self.numbers.clone()  # who is fed here; where its partner is
        self.scale = make(dtype=torch.float32) + 1  # of guidance
        self.is_text, self.published = make(dtype=torch.bool), make(dtype=torch.bool)
        self.num_phases = make() + 1
        self.blocked = make(text_vocab_size, dtype=torch.bool)  # text ids that may not be drawn
        self.low, self.high, self.eos = make(MAX_PHASES), make(MAX_PHASES), make(MAX_PHASES)
        self.least, self.most = make(MAX_PHASES), make(MAX_PHASES)
        self.tied_to, self.tied_by = make(MAX_PHASES), make(MAX_PHASES) + 1  # frames for frames of the phase before
        self.greedy = make(MAX_PHASES, dtype=torch.bool)
        self.temperature, self.top_p = (make(MAX_PHASES, dtype=torch.float32) + 1 for _ in range(2))
        self.top_k = make(MAX_PHASES)
        self.link_tokens = make(MAX_PHASES, MAX_LINK, columns)
        self.link_mask = make(MAX_PHASES, MAX_LINK, columns, dtype=torch.bool)
        self.link_length = make(MAX_PHASES) + 1
        self.phase, self.count, self.step = make(), make(), make()
        self.link = make() - 1  # next link row to feed; -1: drawing
        self.position = make()  # of the row that is fed next
        self.done = ~make(dtype=torch.bool)
        self.ended_by = make(MAX_PHASES)
        self.log_probability = make(dtype=torch.float32)  # of the text so far, nats
        self.empty_probability = make(dtype=torch.float32)  # of the end in the place of the text's first id
        self.tokens, self.mask = make(columns), make(columns, dtype=torch.bool)  # row that is fed next
        self.history = make(capacity + 1, columns)  # drawn ids; the last entry takes what is not kept
        self.history_phase = make(capacity + 1)
        self.written = make()
        self.uniform = make(capacity + 1, columns, dtype=torch.float32)

    @property
    def slots(self) -> int:
        """Number of slots, L."""
        return self.phase.shape[0]

    @property
    def capacity(self) -> int:
        """Steps that fit, C."""
        return self.history.shape[1] - 1

    def grown(self, slots: int, capacity: int) -> Board:
        """A larger board that holds what this one does."""
        board = Board(slots, capacity, self.num_codebooks, self.device, self.blocked.shape[1])
        for name, old in vars(self).items():
            if isinstance(old, Tensor):
                new = getattr(board, name)
                if name in ("history", "history_phase", "uniform"):
                    new[: self.slots, : self.capacity] = old[:, :-1]
                else:
                    new[: self.slots] = old
        return board

    def place(self, slot: int, request: GenerationRequest, partner: int | None = None) -> None:
        """Put a request into a slot; its prompt is expected to be prefilled but for the last row."""
        prompt, phases = request.prompt, request.prompt.phases
        limits = [request.limit(phase.kind) for phase in phases]
        ratios = [request.frame_ratio(index) for index in range(len(phases))]
        samplers = [request.sampler(phase.kind) for phase in phases]
        sampler = Sampler.of(samplers, "cpu")
        values: dict[str, Sequence[float] | Tensor] = {
            **{name: [getattr(phase, name) for phase in phases] for name in ("low", "high", "eos")},
            "least": [least for least, _ in limits],
            "most": [most for _, most in limits],
            "tied_to": [ratio.numerator for ratio in ratios],
            "tied_by": [ratio.denominator for ratio in ratios],
            **{name: getattr(sampler, name) for name in ("greedy", "temperature", "top_k", "top_p")},
            "link_length": [phase.link_tokens.shape[0] for phase in phases],
        }
        for name, value in values.items():
            table = getattr(self, name)
            table[slot, : len(phases)] = torch.as_tensor(value, dtype=table.dtype, device="cpu").to(self.device)
        for index, phase in enumerate(phases):
            rows = phase.link_tokens.shape[0]
            self.link_tokens[slot, index, :rows] = phase.link_tokens.to(self.device)
            self.link_mask[slot, index, :rows] = phase.link_mask.to(self.device)
        size = self.blocked.shape[1]
        self.blocked[slot] = False
        self.blocked[slot, [token for token in phases[0].forbidden if token < size]] = True
        start = {"is_text": request.is_text, "published": phases[0].published, "num_phases": len(phases)}
        start |= {"position": len(prompt) - 1, "done": False, "scale": request.guidance_scale, "link": -1}
        start |= dict.fromkeys(
            ("phase", "count", "step", "written", "ended_by", "log_probability", "empty_probability"), 0
        )
        for name, value in start.items():
            getattr(self, name)[slot] = value
        self.owner[slot], self.pair[slot] = slot, slot if partner is None else partner
        if partner is not None:
            self.owner[partner], self.pair[partner], self.scale[partner] = slot, partner, 1
            self.done[partner] = True
        self.tokens[slot] = prompt.tokens[-1].to(self.device)
        self.mask[slot] = prompt.mask[-1].to(self.device)
        # Numbers come in order of steps, so a request draws the same ones however large the board is.
        generator = torch.Generator().manual_seed(request.seed)
        steps = min(request.max_steps + 1, self.capacity)
        self.uniform[slot, :steps] = torch.rand(
            steps, self.num_codebooks + 1, generator=generator, dtype=torch.float32, device="cpu"
        ).to(self.device)

    def current(self, name: str, slots: Tensor) -> Tensor:
        """Entry of a per-phase table for the phase that each of ``slots`` is in."""
        return getattr(self, name)[slots, self.phase[slots]]

    def draws(self, slots: Tensor) -> Tensor:
        """Uniform numbers of this step, (n, K+1)."""
        return self.uniform[slots, self.step[slots].clamp(max=self.capacity)]

    def sampler(self, slots: Tensor, needs: Needs) -> Sampler:
        """Settings of the phases that ``slots`` are in."""
        names = ("greedy", "temperature", "top_k", "top_p")
        if not needs.draws:
            return Sampler(needs, *(getattr(self, name)[:0] for name in names))
        phase = self.phase[slots]
        return Sampler(needs, *(getattr(self, name)[slots, phase] for name in names))

    def advance(self, ids: Tensor) -> None:
        """Take one drawn row per slot, (L, K+1) with text last, and work out what is fed next."""
        slots, phase, forced = self.numbers, self.phase, self.link >= 0
        eos = self.eos[slots, phase]
        single = torch.where(self.is_text, ids[:, -1], ids[:, 0]) == eos
        agreed = (ids[:, :-1] == eos[:, None]).all(dim=1)
        ended = torch.where(self.published & ~self.is_text, agreed, single) & ~forced & ~self.done
        kept = ~forced & ~ended & ~self.done
        index = torch.where(kept, self.written, self.capacity)
        self.history[slots, index] = ids
        self.history_phase[slots, index] = phase
        full = self.count >= self.most[slots, phase]
        self.ended_by[slots, phase] = torch.where(ended, 1 + full.long(), self.ended_by[slots, phase])
        self.written += kept
        self.count += kept

        self.done |= ended & (phase + 1 == self.num_phases)
        link = torch.where(ended, 0, self.link)
        linking = (link >= 0) & ~self.done
        used = link.clamp(min=0)
        drawn = torch.where(self.is_text[:, None], 0, ids)
        drawn[:, -1] = torch.where(self.is_text, ids[:, -1], 0)
        drawn_mask = (~self.is_text)[:, None].expand_as(self.mask).clone()
        drawn_mask[:, -1] = self.is_text
        self.tokens.copy_(torch.where(linking[:, None], self.link_tokens[slots, phase, used], drawn))
        self.mask.copy_(torch.where(linking[:, None], self.link_mask[slots, phase, used], drawn_mask))
        link = torch.where(linking, link + 1, link)
        through = linking & (link >= self.link_length[slots, phase])
        self.link.copy_(torch.where(through | self.done, -1, link))
        self._enter(slots, phase + through, through)
        self.position += ~self.done
        self.step += 1

    def _enter(self, slots: Tensor, phase: Tensor, through: Tensor) -> None:
        """Start the next phase where the link is through; tied lengths follow from the phase before.

        n frames that last h each stand for (n-1) h up to n h of audio, hence for int((n-1) r) + 1 up to ceil(n r)
        frames of a stream that has r of them to one.
        """
        ratio, whole = self.tied_to[slots, phase], self.tied_by[slots, phase]
        tied = through & (ratio > 0)
        most = torch.minimum((self.count * ratio + whole - 1) // whole, self.most[slots, phase])
        least = ((self.count - 1) * ratio // whole + 1).clamp(min=1)
        self.most[slots, phase] = torch.where(tied, most, self.most[slots, phase])
        self.least[slots, phase] = torch.where(tied, torch.minimum(least, most), self.least[slots, phase])
        self.count.masked_fill_(through, 0)
        self.phase.copy_(phase)
