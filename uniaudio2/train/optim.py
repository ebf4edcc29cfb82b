"""Optimiser, learning-rate schedule and averaged weights; knows nothing of stages or checkpoints on disk."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from uniaudio2.errors import UserError


def learning_rate_factor(
    step: int, *, steps: int, warmup_steps: int, decay_fraction: float, min_lr_ratio: float = 0.0
) -> float:
    """Warm-up, stable, decay: the factor on the peak learning rate at optimiser step ``step``.

    Choice: not the cosine of the paper's codec, because a cosine fixes the length of a run at its first step, while
    this schedule can be shortened or lengthened until the decay begins.

    Args:
        step: Optimiser step, from 0.
        steps: Length of the run.
        warmup_steps: Steps of linear rise from ``1 / warmup_steps`` to 1.
        decay_fraction: Share of ``steps`` at the end over which the factor falls linearly.
        min_lr_ratio: Factor reached at the last step.

    Returns:
        A factor in [0, 1].
    """
    warm = min(1.0, (step + 1) / warmup_steps) if warmup_steps > 0 else 1.0
    decay_steps = int(steps * decay_fraction)
    if decay_steps <= 0:
        return warm
    left = (steps - step) / (decay_steps + 1)
    return min(warm, min_lr_ratio + (1.0 - min_lr_ratio) * max(0.0, min(1.0, left)))


def parameter_groups(
    parameters: Iterable[nn.Parameter] | Iterable[Mapping[str, Any]], *, weight_decay: float
) -> list[dict[str, Any]]:
    """Split parameters into hidden matrices, other matrices and undecayed vectors, group by group.

    Args:
        parameters: Parameters, or groups ``{"params": [...], "lr_scale": float = 1, "weight_decay": float, "hidden":
            [...]}``; ``hidden`` are those of its matrices that lie between activations (not embeddings, not heads).
        weight_decay: Decay of tensors with two or more axes in groups that name none; vectors are never decayed.

    Returns:
        Optimiser groups with keys ``params``, ``weight_decay``, ``lr_scale``, ``hidden`` (bool) and ``clip_group``
        (index of the given group: gradients are clipped per given group).

    Raises:
        ValueError: If there is nothing to train.
    """
    items = list(parameters)
    given: list[Mapping[str, Any]] = (
        [item for item in items if isinstance(item, Mapping)]
        if items and isinstance(items[0], Mapping)
        else [{"params": items}]
    )
    groups: list[dict[str, Any]] = []
    seen: set[int] = set()
    for index, group in enumerate(given):
        decay = float(group.get("weight_decay", weight_decay))
        scale = float(group.get("lr_scale", 1.0))
        hidden = {id(parameter) for parameter in group.get("hidden", ())}
        parts: dict[tuple[bool, bool], list[nn.Parameter]] = {(True, True): [], (False, True): [], (False, False): []}
        for parameter in group["params"]:
            if parameter.requires_grad and id(parameter) not in seen:
                seen.add(id(parameter))
                is_hidden = id(parameter) in hidden and parameter.ndim == 2
                parts[is_hidden, parameter.ndim >= 2].append(parameter)
        groups += [
            {
                "params": part,
                "weight_decay": decay if matrices else 0.0,
                "lr_scale": scale,
                "hidden": is_hidden,
                "clip_group": index,
            }
            for (is_hidden, matrices), part in parts.items()
            if part
        ]
    if not groups:
        raise UserError("the stage has no parameter to train; check parameters_to_train() and requires_grad")
    return groups


class Muon(torch.optim.Optimizer):
    """Momentum whose update of a matrix is made orthogonal (https://kellerjordan.github.io/posts/muon/).

    Choice: not `torch.optim.Muon`, which multiplies in bfloat16 everywhere: that is ten times slower than float32 on a
    processor without instructions for it, and was most of a step. Matrices of one shape go through it together.
    Momentum, decay and scale are those of `torch.optim.Muon(adjust_lr_fn="match_rms_adamw")`.

    Args:
        groups: Groups of matrices.
        lr: Learning rate.
        momentum: Of the running mean of the gradients; the step looks ahead by it (Nesterov).
        weight_decay: Where a group names none.
    """

    def __init__(self, groups: Iterable[Any], *, lr: float, momentum: float = 0.95, weight_decay: float = 0.1) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step."""
        for group in self.param_groups:
            alike: dict[torch.Size, list[tuple[nn.Parameter, Tensor]]] = {}
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                mean = state.setdefault("momentum_buffer", torch.zeros_like(parameter.grad))
                mean.lerp_(parameter.grad, 1 - group["momentum"])
                update = parameter.grad.lerp(mean, group["momentum"])
                alike.setdefault(parameter.shape, []).append((parameter, update))
            for shape, members in alike.items():
                lr = group["lr"] * 0.2 * max(shape) ** 0.5  # as large as AdamW's updates
                updates = _shared_out(torch.stack([update for _, update in members]))
                for (parameter, _), update in zip(members, updates, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(update.to(parameter.dtype), alpha=-lr)


def _shared_out(matrices: Tensor) -> Tensor:
    """`orthogonal`, of which each of the processes that train together does its part."""
    if not (dist.is_available() and dist.is_initialized()):
        return orthogonal(matrices)
    rank, size = dist.get_rank(), dist.get_world_size()
    found = torch.zeros_like(matrices)
    own = slice(rank * len(matrices) // size, (rank + 1) * len(matrices) // size)
    found[own] = orthogonal(matrices[own]).to(found.dtype)
    dist.all_reduce(found)  # a sum with zeros: every process gets the same numbers
    return found


def orthogonal(matrices: Tensor) -> Tensor:
    """Matrices (n, a, b) with all singular values brought near 1, by five Newton-Schulz iterations.

    In float32 on a CPU, else in bfloat16.
    """
    found = matrices.float() if matrices.device.type == "cpu" else matrices.bfloat16()
    tall = found.shape[1] > found.shape[2]
    found = found.mT if tall else found
    found = found / found.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        square = found @ found.mT
        found = 3.4445 * found + (torch.baddbmm(square, square, square, beta=-4.775, alpha=2.0315) @ found)
    return found.mT if tall else found


class MuonAdamW(torch.optim.Optimizer):
    """Muon for hidden matrices and AdamW for everything else, as one optimiser.

    Orthogonal updates let every direction of a matrix learn at the same pace. They are scaled to the size of AdamW's,
    so both share one schedule.

    Args:
        groups: From ``parameter_groups``.
        muon_lr: Muon's learning rate as a multiple of AdamW's.
        **adamw: Options of AdamW.

    Raises:
        ValueError: If no group is of hidden matrices.
    """

    def __init__(self, groups: Sequence[dict[str, Any]], *, lr: float, muon_lr: float, **adamw: Any) -> None:
        for group in groups:
            group["lr_scale"] *= muon_lr if group["hidden"] else 1.0
        hidden, others = ([g for g in groups if g["hidden"] == flag] for flag in (True, False))
        if not hidden:
            raise UserError("this stage names no hidden matrices for Muon; set train.optimizer=adamw")
        self._members: list[torch.optim.Optimizer] = [Muon(hidden, lr=lr)]
        if others:
            self._members.append(torch.optim.AdamW(others, lr=lr, **adamw))
        super().__init__([group for member in self._members for group in member.param_groups], {})
        for member in self._members:  # the groups and the state are the same objects, here and in the members
            member.state = self.state

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step of both."""
        if closure is not None:
            raise TypeError("MuonAdamW takes no closure")
        for member in self._members:
            member.step()


def make_optimizer(
    parameters: Iterable[nn.Parameter] | Iterable[Mapping[str, Any]],
    *,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.95),
    eps: float = 1e-8,
    weight_decay: float = 0.05,
    muon_lr: float | None = None,
) -> torch.optim.Optimizer:
    """AdamW over ``parameter_groups``; betas and decay default to the paper's codec settings.

    With ``muon_lr``, a multiple of ``lr``, hidden matrices learn by Muon. AdamW's fused kernel is used on CPU and CUDA
    (several times faster than the loop over tensors on both).
    """
    groups = parameter_groups(parameters, weight_decay=weight_decay)
    devices = {p.device.type for group in groups for p in group["params"]}
    adamw: dict[str, Any] = {"betas": betas, "eps": eps, "fused": devices <= {"cpu", "cuda"}}
    if muon_lr is not None:
        return MuonAdamW(groups, lr=lr, muon_lr=muon_lr, **adamw)
    return torch.optim.AdamW(groups, lr=lr, **adamw)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of every group to ``lr`` times the group's ``lr_scale``."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)


def clip_gradients(optimizer: torch.optim.Optimizer, max_norm: float) -> Tensor:
    """Clip the gradient norm of every given group to ``max_norm``; 0 only measures.

    Returns:
        The largest group norm before clipping, a scalar tensor (not finite when any gradient is not).
    """
    by_group: dict[int, list[nn.Parameter]] = {}
    for group in optimizer.param_groups:
        by_group.setdefault(group.get("clip_group", 0), []).extend(p for p in group["params"] if p.grad is not None)
    norms: list[Tensor] = []
    for params in by_group.values():
        if not params:
            continue
        norm = torch.nn.utils.get_total_norm([p.grad for p in params if p.grad is not None])
        if max_norm > 0:
            torch.nn.utils.clip_grads_with_norm_(params, max_norm, norm)
        norms.append(norm)
    if not norms:
        raise UserError("no parameter received a gradient; check that the loss depends on parameters_to_train()")
    return torch.stack(norms).max()


class EMA:
    """Exponential moving average of named parameters, with a short warm-up of the decay.

    Args:
        parameters: Trained parameters by name.
        decay: Weight of the past per step, in [0, 1).
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self.parameters: dict[str, nn.Parameter] = dict(parameters)
        self._decay = decay
        self._model = AveragedModel(self._listed())
        copies = zip(self.parameters, self._model.module.parameters(), strict=True)
        self.average: dict[str, Tensor] = {name: copy.detach() for name, copy in copies}

    def _listed(self) -> nn.ParameterList:
        return nn.ParameterList(self.parameters.values())

    def update(self, step: int) -> None:
        """Move the average towards the parameters after optimiser step ``step`` (from 0).

        The decay rises as (1 + step) / (10 + step), so that the start of a run does not linger in the average.
        """
        self._model.multi_avg_fn = get_ema_multi_avg_fn(min(self._decay, (1 + step) / (10 + step)))
        self._model.n_averaged.fill_(step + 1)  # at 0 the library would take the parameters as they are
        self._model.update_parameters(self._listed())

    @contextlib.contextmanager
    def swapped(self) -> Iterator[None]:
        """Within the context the parameters hold the averaged values."""
        parameters: Sequence[nn.Parameter] = list(self.parameters.values())
        with torch.no_grad():
            kept = [p.detach().clone() for p in parameters]
            torch._foreach_copy_(list(parameters), list(self.average.values()))
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(list(parameters), kept)

    def load(self, average: Mapping[str, Tensor]) -> None:
        """Restore the averages; names and shapes must match.

        Raises:
            ValueError: If the names differ.
        """
        if set(average) != set(self.average):
            odd = sorted(set(average) ^ set(self.average))
            raise UserError(f"averaged weights do not fit the trained parameters, first difference: {odd[0]}")
        for name, value in average.items():
            self.average[name].copy_(value)
