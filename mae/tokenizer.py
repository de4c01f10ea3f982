"""Discrete codes for patches: a small discrete VAE trained on the run's own pictures, and the DALL-E encoder."""

from __future__ import annotations

import math
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from mae.data.source import Batch
from mae.grid import Grid
from mae.train.checkpoint import pack
from mae.train.loop import fit, seed_of
from mae.train.optim import Recipe
from mae.train.parts import Objective
from mae.train.views import Views
from mae.world import ALONE


@dataclass(frozen=True)
class LearnedTokenizer:
    """A discrete VAE is trained on the run's own views for ``steps`` steps; it stands at the desk for DALL-E's.

    The Gumbel-softmax cools from ``temperature[0]`` to ``temperature[1]`` geometrically, as DALL-E's does (1 to 1/16;
    2102.12092, A.2). ``kl_weight`` weighs the divergence of the batch's mean distribution of codes from the uniform
    one, which keeps codes from collapsing to a few; DALL-E takes each patch's own, which also punishes certainty
    and left nine codes in ten unused in trials of 150 steps. ``lr`` is the peak rate for ``batch_size``.
    """

    codebook: int = 256
    width: int = 64
    blocks: int = 2
    steps: int = 400
    batch_size: int = 64
    lr: float = 1e-2
    kl_weight: float = 0.1
    temperature: Sequence[float] = (1.0, 1 / 16)

    def __post_init__(self) -> None:
        if self.codebook < 2 or min(self.width, self.blocks, self.steps, self.batch_size) < 1:
            raise ValueError(f"{self}: give two codes or more, and one or more for width, blocks, steps and batch_size")
        if len(self.temperature) != 2 or min(self.temperature) <= 0:
            raise ValueError(f"{self}: temperature takes two positive numbers, first and last")

    def prepare(self, grid: Grid, views: Views) -> DiscreteVAE:
        """Train, or go on from the checkpoints of ``views``; the same views give the same tokenizer."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(views.runtime.seed, "tokenizer", 0))
            model = DiscreteVAE(grid, self)
        model.to(views.runtime.device)
        batch = min(self.batch_size, len(views.source))
        per_epoch = len(views.source) // batch
        recipe = Recipe(
            optimizer="adamw",
            base_lr=self.lr * 256 / batch,
            batch_size=batch,
            epochs=self.steps / per_epoch,
            warmup_epochs=0.1 * self.steps / per_epoch,
            weight_decay=0.0,
            betas=(0.9, 0.999),
        )
        optimizer = recipe.build(model)
        checkpoints = views.checkpoints
        # the curves and the progress of the run are those of the pre-training
        runtime = replace(
            views.runtime,
            checkpoints=checkpoints,
            observe=lambda step, values: None,
            advance=lambda steps: None,
            world=ALONE,
            micro_batch=None,
        )
        if views.runtime.world.rank:  # the first process trains it, and gives its weights to the others
            return model

        def loss_fn(batch: Batch, generator: Generator) -> Tensor:
            return model.loss(grid.patchify(views.augment(batch.images, generator)), generator)

        objective = Objective.of(loss_fn, "the codes of a whole batch are to be used equally")
        fitted = fit(model, optimizer, objective, views.source, recipe, runtime)
        if checkpoints:  # a run that is stopped later need not train the tokenizer again
            checkpoints.save(pack(model, optimizer), {"step": fitted.steps, "seconds": fitted.seconds})
        return model

    def flops(self, grid: Grid) -> float:
        """The encoder of the VAE runs over the plane of patches."""
        with torch.device("meta"):
            return convolution_flops(DiscreteVAE(grid, self).encoder, grid.num_patches)


class DiscreteVAE(nn.Module):
    """It gives each patch one code: ``model(patches: (B, N, P))`` is ``(B, N)`` int64.

    Residual convolutions run over the plane of patches, slot by slot, so a code describes its patch in its
    surroundings. ``taken`` counts the training steps, on which the temperature depends.
    """

    taken: Tensor

    def __init__(self, grid: Grid, settings: LearnedTokenizer) -> None:
        super().__init__()
        self.grid, self.settings = grid, settings
        width, codebook = settings.width, settings.codebook
        self.encoder = nn.Sequential(
            nn.Conv2d(grid.patch_dim, width, 1),
            *(ResidualBlock(width) for _ in range(settings.blocks)),
            nn.ReLU(),
            nn.Conv2d(width, codebook, 1),
        )
        embedding = nn.Conv2d(codebook, width, 1, bias=False)
        # one code is on at a time: without the usual division by the number of inputs, its vector has unit variance
        nn.init.normal_(embedding.weight)
        self.decoder = nn.Sequential(
            embedding,
            *(ResidualBlock(width) for _ in range(settings.blocks)),
            nn.ReLU(),
            nn.Conv2d(width, grid.patch_dim, 1),
        )
        self.register_buffer("taken", torch.zeros((), dtype=torch.int64))

    def planes(self, patches: Tensor) -> Tensor:
        """Lay out ``(B, t h w, P)`` as one picture of patches a slot, ``(B t, P, h, w)``."""
        return patches.reshape(-1, self.grid.h, self.grid.w, self.grid.patch_dim).permute(0, 3, 1, 2)

    def forward(self, patches: Tensor) -> Tensor:
        logits: Tensor = self.encoder(self.planes(patches))
        return logits.argmax(1).reshape(len(patches), -1)

    def loss(self, patches: Tensor, generator: Generator) -> Tensor:
        """Add the squared error of the reconstruction and the weighted divergence (nats) of the codes, in fp32."""
        planes = self.planes(patches)
        logits = self.encoder(planes).float()
        first, last = self.settings.temperature
        temperature = first * (last / first) ** (self.taken / self.settings.steps)
        self.taken += 1
        uniform = torch.rand(logits.shape, generator=generator, device=generator.device)
        gumbel = -(-uniform.clamp(1e-6, 1 - 1e-6).log()).log()
        reconstruction = self.decoder(((logits + gumbel) / temperature).softmax(1)).float()
        used = logits.softmax(1).mean((0, 2, 3)).clamp(min=1e-12)
        divergence = math.log(self.settings.codebook) + (used * used.log()).sum()
        loss: Tensor = F.mse_loss(reconstruction, planes) + self.settings.kl_weight * divergence
        return loss


class ResidualBlock(nn.Module):
    """A 3 x 3 and a 1 x 1 convolution of ``width`` channels, each after a ReLU, are added to the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.around = nn.Conv2d(width, width, 3, padding=1)
        self.mix = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = self.mix(F.relu(self.around(F.relu(x))))
        return x + residual


def convolution_flops(module: nn.Module, places: int) -> float:
    """Count the convolutions of ``module``, each of which runs over as many ``places``."""
    return 2.0 * places * sum(part.weight.numel() for part in module.modules() if isinstance(part, nn.Conv2d))


#: Side in pixels of the square that the DALL-E encoder turns into one code.
DALLE_STRIDE = 8


@dataclass(frozen=True)
class DalleTokenizer:
    """It reads DALL-E's encoder (2102.12092), the tokenizer of MAE Table 1d and BEiT, from ``path``.

    ``path`` is a state dict, ``.safetensors`` or a torch file of tensors only; the published ``encoder.pkl`` is a
    pickled module, which is never loaded here. ``mean`` and ``std`` are those that the run's views are normalised by.
    ``width`` and ``codebook`` are the published sizes. ValueError if there is no such file; while none is named, it
    can be counted and not prepared.
    """

    path: str | None
    mean: Sequence[float]
    std: Sequence[float]
    codebook: int = 8192
    width: int = 256

    def __post_init__(self) -> None:
        if self.path is not None and not Path(self.path).is_file():
            raise ValueError(f"the DALL-E encoder is missing: {self.path} is not a file; {_HOW_TO_GET}")

    def prepare(self, grid: Grid, views: Views) -> DalleEncoder:
        """Load the encoder onto the device of ``views``; ValueError if the grid or the file does not fit."""
        if grid.t * grid.patch[0] != 1 or grid.channels != 3:
            raise ValueError(
                "the DALL-E encoder reads RGB pictures; use tokenizer=learned for clips and other channels"
            )
        if self.path is None:
            raise ValueError(f"the DALL-E encoder is missing: no file is named; {_HOW_TO_GET}")
        with torch.device("meta"):
            model = DalleEncoder(grid, self)
        self._load(model, Path(self.path))
        return model.to(views.runtime.device)

    def flops(self, grid: Grid) -> float:
        """Each group of blocks runs at half the side of the one before."""
        with torch.device("meta"):
            parts = list(DalleEncoder(grid, self).blocks.children())
        sides = [DALLE_STRIDE, *(DALLE_STRIDE >> halvings for halvings in range(4)), 1]
        return sum(convolution_flops(part, grid.num_patches * side**2) for part, side in zip(parts, sides, strict=True))

    @staticmethod
    def _load(model: DalleEncoder, path: Path) -> None:
        try:
            if path.suffix == ".safetensors":
                tensors = load_file(path)
            else:
                tensors = torch.load(path, map_location="cpu", weights_only=True)
            # published names end in .w and .b
            found = {f"{key[:-1]}{_ENDINGS.get(key[-1], key[-1])}": tensor.float() for key, tensor in tensors.items()}
        except (OSError, SafetensorError, pickle.UnpicklingError, RuntimeError, AttributeError, TypeError) as error:
            raise ValueError(f"{path} cannot be read as a state dict of tensors; {_HOW_TO_GET}") from error
        wanted = model.state_dict()
        for name in sorted(wanted.keys() | found.keys()):
            has, needs = (tuple(part[name].shape) if name in part else "absent" for part in (found, wanted))
            if has != needs:
                raise ValueError(
                    f"{path} is not the DALL-E encoder: {name} is {has} there and should be {needs}; {_HOW_TO_GET}"
                )
        model.load_state_dict(found, assign=True)


_ENDINGS = {"w": "weight", "b": "bias"}

_HOW_TO_GET = (
    "open the published encoder.pkl with the package dall_e where you trust it, save its state_dict() by "
    "safetensors.torch.save_file, and set tokenizer.path=FILE"
)


class DalleEncoder(nn.Module):
    """``model(patches: (B, N, P))`` is ``(B, N)`` int64: pictures are resized so that each patch gets one code.

    The architecture is the released one. A 7 x 7 convolution is followed by four groups of two bottleneck blocks, of
    1, 2, 4 and 8 times ``width`` channels, with 2 x 2 max-pooling between them. One logit for each code comes last.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, grid: Grid, settings: DalleTokenizer) -> None:
        super().__init__()
        self.grid = grid
        width = settings.width
        channels = [width, width, 2 * width, 4 * width, 8 * width]
        groups = {
            f"group_{i}": nn.ModuleDict({"block_1": Bottleneck(before, after), "block_2": Bottleneck(after, after)})
            for i, (before, after) in enumerate(pairwise(channels), 1)
        }
        output = nn.ModuleDict({"conv": nn.Conv2d(channels[-1], settings.codebook, 1)})
        self.blocks = nn.ModuleDict({"input": nn.Conv2d(3, width, 7, padding=3), **groups, "output": output})
        for name in ("mean", "std"):
            values = torch.tensor(list(getattr(settings, name)), device="cpu").view(-1, 1, 1)
            self.register_buffer(name, values, persistent=False)

    def pixels(self, patches: Tensor) -> Tensor:
        """Make what the encoder reads, ``(B, 3, 8 h, 8 w)``: values in [0, 1] are mapped to [0.1, 0.9]."""
        pictures = self.grid.unpatchify(patches).squeeze(2) * self.std + self.mean
        size = (DALLE_STRIDE * self.grid.h, DALLE_STRIDE * self.grid.w)
        resized = F.interpolate(pictures, size, mode="bilinear", antialias=True, align_corners=False)
        return 0.8 * resized.clamp(0, 1) + 0.1

    def forward(self, patches: Tensor) -> Tensor:
        x = self.blocks["input"](self.pixels(patches))
        for i in (1, 2, 3, 4):
            group: nn.ModuleDict = self.blocks[f"group_{i}"]  # type: ignore[assignment]
            x = group["block_2"](group["block_1"](x))
            if i < 4:
                x = F.max_pool2d(x, 2)
        logits: Tensor = self.blocks["output"]["conv"](F.relu(x))  # type: ignore[index]
        return logits.argmax(1).flatten(1)


class Bottleneck(nn.Module):
    """Three 3 x 3 convolutions at a quarter of the channels and a 1 x 1, all after ReLUs, are added with gain 1/64."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        hidden = outputs // 4
        self.id_path = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.res_path = nn.ModuleDict(
            {
                "conv_1": nn.Conv2d(inputs, hidden, 3, padding=1),
                "conv_2": nn.Conv2d(hidden, hidden, 3, padding=1),
                "conv_3": nn.Conv2d(hidden, hidden, 3, padding=1),
                "conv_4": nn.Conv2d(hidden, outputs, 1),
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        residual = x
        for conv in self.res_path.values():
            residual = conv(F.relu(residual))
        shortcut: Tensor = self.id_path(x)
        # one over the square of the number of blocks, eight
        return shortcut + residual / 64
