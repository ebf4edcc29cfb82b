"""Optimiser, learning-rate schedule and averaged weights; knows nothing of stages or checkpoints on disk."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


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
    """Split parameters into decayed matrices and undecayed vectors, group by group.

    Args:
        parameters: Parameters, or groups ``{"params": [...], "lr_scale": float = 1, "weight_decay": float}``.
        weight_decay: Decay of tensors with two or more axes in groups that name none; vectors are never decayed.

    Returns:
        Optimiser groups with keys ``params``, ``weight_decay``, ``lr_scale`` and ``clip_group`` (index of the
        given group: gradients are clipped per given group).

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
        params = []
        for parameter in group["params"]:
            if parameter.requires_grad and id(parameter) not in seen:
                seen.add(id(parameter))
                params.append(parameter)
        for matrices in (True, False):
            part = [p for p in params if (p.ndim >= 2) == matrices]
            if part:
                groups.append(
                    {
                        "params": part,
                        "weight_decay": decay if matrices else 0.0,
                        "lr_scale": scale,
                        "clip_group": index,
                    }
                )
    if not groups:
        raise ValueError("the stage has no parameter to train; check parameters_to_train() and requires_grad")
    return groups


def make_optimizer(
    parameters: Iterable[nn.Parameter] | Iterable[Mapping[str, Any]],
    *,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.95),
    eps: float = 1e-8,
    weight_decay: float = 0.05,
) -> torch.optim.AdamW:
    """AdamW over ``parameter_groups``; betas and decay default to the paper's codec settings.

    The fused kernel is used on CPU and CUDA (several times faster than the loop over tensors on both).
    """
    groups = parameter_groups(parameters, weight_decay=weight_decay)
    devices = {p.device.type for group in groups for p in group["params"]}
    fused = devices <= {"cpu", "cuda"}
    return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=eps, fused=fused)


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
        raise ValueError("no parameter received a gradient; check that the loss depends on parameters_to_train()")
    return torch.stack(norms).max()


class EMA:
    """Exponential moving average of named parameters, with a short warm-up of the decay.

    Args:
        parameters: Trained parameters by name.
        decay: Weight of the past per step, in [0, 1).
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self.decay = decay
        self.parameters: dict[str, nn.Parameter] = dict(parameters)
        self.average: dict[str, Tensor] = {name: p.detach().clone() for name, p in self.parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the parameters after optimiser step ``step`` (from 0).

        The decay rises as (1 + step) / (10 + step), so that the start of a run does not linger in the average.
        """
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.average.values()), list(self.parameters.values()), 1.0 - decay)

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
            raise ValueError(f"averaged weights do not fit the trained parameters, first difference: {odd[0]}")
        for name, value in average.items():
            self.average[name].copy_(value)
