"""What is optimised, and how fast: recipes, parameter groups, the learning rate as a function of the step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


@dataclass(frozen=True)
class Recipe:
    """A recipe is a row of MAE Tables 8-11 or VideoMAE Tables 9-11. Epochs may be fractions of a pass over the data.

    ``base_lr`` is per 256 samples: the peak rate is ``base_lr * batch_size / 256`` (linear scaling rule).
    ``schedule`` multiplies ``epochs`` and leaves the warm-up alone (MAE Fig. 7).
    """

    optimizer: str
    base_lr: float
    batch_size: int
    epochs: float
    warmup_epochs: float
    weight_decay: float
    betas: tuple[float, float] = (0.9, 0.95)
    momentum: float = 0.9
    layer_decay: float = 1.0
    min_lr: float = 0.0
    schedule: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", tuple(self.betas))
        for name in ("base_lr", "batch_size", "epochs", "schedule", "layer_decay"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} must be above 0")
        for name in ("warmup_epochs", "weight_decay", "min_lr"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} is negative")
        if len(self.betas) != 2 or not all(0 <= share < 1 for share in (*self.betas, self.momentum)):
            raise ValueError(f"betas={self.betas}, momentum={self.momentum}: give numbers from 0 to below 1, two betas")
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"unknown optimizer {self.optimizer!r}; choose one of {', '.join(OPTIMIZERS)}")

    @property
    def peak_lr(self) -> float:
        return self.base_lr * self.batch_size / 256

    def steps(self, samples: int) -> int:
        """Count the steps of ``epochs`` passes over ``samples`` items, whose incomplete last batch is dropped."""
        return max(1, round(self.epochs * self.schedule * self.steps_per_epoch(samples)))

    def samples_seen(self, samples: int) -> float:
        """Count how many samples ``epochs`` passes over ``samples`` items look at."""
        return self.epochs * self.schedule * samples

    def steps_per_epoch(self, samples: int) -> int:
        return max(1, samples // self.batch_size)

    def lr(self, step: int, samples: int) -> float:
        """Compute the rate at ``step``: it warms up linearly from 0, then falls to ``min_lr`` along half a cosine."""
        warmup = self.warmup_epochs * self.steps_per_epoch(samples)
        if step < warmup:
            return self.peak_lr * step / warmup
        done = (step - warmup) / max(1.0, self.steps(samples) - warmup)
        return self.min_lr + (self.peak_lr - self.min_lr) * 0.5 * (1 + math.cos(math.pi * done))

    @property
    def states(self) -> int:
        """Count the numbers that the optimiser keeps of each parameter: two moments, or a momentum."""
        return 2 if self.optimizer == "adamw" else 1

    def build(self, model: nn.Module, layer_of: Callable[[str], int] | None = None, layers: int = 0) -> Optimizer:
        """Build the optimiser over the trainable parameters of ``model``, grouped by ``parameter_groups``."""
        groups = parameter_groups(model, self.weight_decay, self.layer_decay, layer_of, layers)
        return OPTIMIZERS[self.optimizer](groups, self)


def parameter_groups(
    model: nn.Module,
    weight_decay: float,
    layer_decay: float = 1.0,
    layer_of: Callable[[str], int] | None = None,
    layers: int = 0,
) -> list[dict[str, object]]:
    """Group trainable parameters by ``weight_decay`` and ``lr_scale``.

    No decay on parameters with one axis (biases, norms), nor on those that the model's ``no_weight_decay()`` names.
    ``lr_scale`` is ``layer_decay ** (layers - layer_of(name))``: BEiT's layer-wise decay (MAE appendix A.1).
    """
    exempt: set[str] = model.no_weight_decay() if hasattr(model, "no_weight_decay") else set()  # type: ignore[operator]
    groups: dict[tuple[int, bool], dict[str, object]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        layer = layer_of(name) if layer_of else layers
        decayed = parameter.ndim > 1 and name not in exempt
        group = groups.setdefault(
            (layer, decayed),
            {
                "params": [],
                "names": [],
                "weight_decay": weight_decay if decayed else 0.0,
                "lr_scale": layer_decay ** (layers - layer),
            },
        )
        group["params"].append(parameter)  # type: ignore[attr-defined]
        group["names"].append(name)  # type: ignore[attr-defined]
    return list(groups.values())


class LARS(Optimizer):
    """Layer-wise adaptive rate scaling (You et al., 1708.03888), as MAE's linear probe uses it (Table 10).

    Matrices move by ``lr * momentum(trust * |p| / |g| * g)``, ``g`` including weight decay; vectors by plain momentum.
    """

    def __init__(self, params: Iterable[object], momentum: float = 0.9, trust: float = 0.001) -> None:
        super().__init__(params, {"lr": 0.0, "weight_decay": 0.0, "momentum": momentum, "trust": trust})  # type: ignore[arg-type]

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, parameter.grad, group)

    def _move(self, parameter: Tensor, update: Tensor, group: dict[str, float]) -> None:
        if parameter.ndim > 1:
            update = update.add(parameter, alpha=group["weight_decay"])
            size, norm = parameter.norm(), update.norm()
            one = torch.ones_like(size)
            update = update * torch.where((size > 0) & (norm > 0), group["trust"] * size / norm, one)
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].mul_(group["momentum"]).add_(update)
        parameter.add_(state["momentum"], alpha=-group["lr"])


def _adamw(groups: list[dict[str, object]], recipe: Recipe) -> Optimizer:
    return torch.optim.AdamW(groups, lr=0.0, betas=recipe.betas, fused=True)


def _sgd(groups: list[dict[str, object]], recipe: Recipe) -> Optimizer:
    return torch.optim.SGD(groups, lr=0.0, momentum=recipe.momentum)


def _lars(groups: list[dict[str, object]], recipe: Recipe) -> Optimizer:
    return LARS(groups, momentum=recipe.momentum)


OPTIMIZERS: dict[str, Callable[[list[dict[str, object]], Recipe], Optimizer]] = {
    "adamw": _adamw,
    "sgd": _sgd,
    "lars": _lars,
}
