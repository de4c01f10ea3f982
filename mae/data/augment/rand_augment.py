"""RandAugment of a whole batch on its device, with draws of its own for every picture.

The operations and their strengths are those that timm's ``rand-...-inc1`` policies apply to one PIL picture, which
both papers used for fine-tuning, all frames of a clip alike; values are whole levels 0 to 255 throughout. Eight of
the operations are tables of 256 values, two are blends, five are affine maps: each layer is one look-up, one blend and
one resampling for all pictures together, so that a batch on a device costs the same whatever was drawn and the host
never waits.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from mae.constants import constant
from mae.data.augment.compose import Compose, apart, together
from mae.data.augment.crops import RandomResizedCrop
from mae.data.augment.places import after, inverse
from mae.data.augment.resample import unit
from mae.draws import integers, normal, uniform
from mae.errors import DataError

#: What can be done to a picture, in timm's names; a draw is an index into this.
OPERATIONS = (
    "AutoContrast", "Equalize", "Invert", "Posterize", "Solarize", "SolarizeAdd", "Contrast", "Brightness",
    "Color", "Sharpness", "Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY",
)  # fmt: skip
#: Pillow's weights of red, green and blue in a grey level, of 65536, and the kernel of its smoothing, of 13.
GREY, SMOOTH = (19595, 38470, 7471), ((1, 1, 1), (1, 5, 1), (1, 1, 1))
_SECTION = re.compile(r"(mstd|inc|m|n|p)(\d+(?:\.\d+)?)")


@dataclass(frozen=True)
class RandAugment:
    """``layers`` operations for each picture, each applied with ``probability`` (Cubuk et al., 1909.13719).

    The magnitude is normal around ``magnitude`` with ``std``, clipped to [0, 10]; the operations that have two
    directions take either. ``fill`` is the colour, in [0, 1], of what an affine map uncovers.
    """

    magnitude: float = 9.0
    std: float = 0.5
    layers: int = 2
    probability: float = 0.5
    fill: Sequence[float] = (0.5, 0.5, 0.5)

    def __post_init__(self) -> None:
        if not (0 <= self.magnitude <= 10 and 0 <= self.std <= 10 and self.layers >= 1 and 0 <= self.probability <= 1):
            raise DataError(f"{self}: magnitude and std lie in [0, 10], probability in [0, 1], layers from 1 on.")

    @classmethod
    def of(cls, policy: str, fill: Sequence[float]) -> RandAugment:
        """Read timm's notation, such as ``rand-m9-mstd0.5-inc1``; DataError on a section that means nothing here."""
        head, *sections = policy.split("-")
        found: dict[str, float] = {}
        for section in sections:
            if not (match := _SECTION.fullmatch(section)):
                raise DataError(f"rand_augment={policy}: cannot read {section!r}; write e.g. rand-m9-mstd0.5-inc1.")
            found[match[1]] = float(match[2])
        if head != "rand" or found.get("inc") != 1 or "m" not in found:
            raise DataError(f"rand_augment={policy}: only rand-m...-inc1 is known here, e.g. rand-m9-mstd0.5-inc1.")
        return cls(found["m"], found.get("mstd", 0.0), int(found.get("n", 2)), found.get("p", 0.5), fill)

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        return self._done(images, generator)[0]

    def mapped(self, images: Tensor, generator: Generator) -> tuple[Tensor, Tensor | None]:
        """The pictures, and where the affine operations put their points."""
        images, drawn = self._done(images, generator)
        rows, columns = images.shape[-2:]
        maps: Tensor | None = None
        for operation, amount in drawn:
            maps = after(maps, inverse(origins(operation, amount, rows, columns)))
        return images, maps

    def _done(self, images: Tensor, generator: Generator) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """The pictures, and of each layer the operations and the signed share of their strength, both ``(B,)``."""
        images = unit(images)
        if images.shape[1] != 3:
            raise DataError(f"RandAugment needs 3 channels (RGB), the pictures have {images.shape[1]}; leave it out.")
        frames, each = apart(images)
        levels, drawn = (frames * 255).round_(), []
        for _ in range(self.layers):
            operation = integers(generator, len(OPERATIONS), len(images))
            applied, direction = uniform(generator, 2, len(images), axis=1)
            noise = normal(generator, len(images))
            magnitude = (self.magnitude + self.std * noise).clamp_(0, 10)
            operation = torch.where(applied < self.probability, operation, -1)
            sign = torch.where(direction < 0.5, -1.0, 1.0)
            drawn.append((operation, sign * (magnitude / 10)))
            with torch.autocast(images.device.type, enabled=False):  # half precision cannot tell 256 levels apart
                choice, strength, way = (draw.repeat_interleave(each) for draw in (operation, magnitude, sign))
                levels = operate(levels, choice, strength, way, self.fill)
        return together(levels / 255, images), drawn


def rand_augmented_crop(
    size: int | Sequence[int],
    scale: Sequence[float] = (0.2, 1.0),
    flip: bool = True,
    rand_augment: str = "rand-m9-mstd0.5-inc1",
    fill: Sequence[float] = (0.5, 0.5, 0.5),
) -> Compose:
    """A random crop, then RandAugment: the training view of MAE Tables 9 and 11, in timm's order.

    Two steps, so that streamed files can be cropped as they are decoded. Raises DataError as the steps do.
    """
    return Compose((RandomResizedCrop(size, scale, flip=flip), RandAugment.of(rand_augment, fill)))


@dataclass(frozen=True)
class WholeFrameCrop:
    """RandAugment of whole frames, then a random crop of them, all frames of a clip alike (VideoMAE, as released).

    The policy works at the size of the frames that are read, with bicubic affine maps that uncover grey (level 128);
    the crop is bilinear and not antialiased. It is one step, so that streamed clips take both where they are read.
    """

    size: int | Sequence[int]
    scale: Sequence[float] = (0.08, 1.0)
    flip: bool = True
    rand_augment: str = "rand-m7-n4-mstd0.5-inc1"
    fill: Sequence[float] = (0.5, 0.5, 0.5)
    interpolation: str = "bilinear"
    antialias: bool = False

    def __post_init__(self) -> None:
        self.steps()

    def steps(self) -> Compose:
        """Both steps."""
        crop = RandomResizedCrop(
            self.size, self.scale, flip=self.flip, interpolation=self.interpolation, antialias=self.antialias
        )
        return Compose((RandAugment.of(self.rand_augment, self.fill), crop))

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        return self.steps()(images, generator)

    def mapped(self, images: Tensor, generator: Generator) -> tuple[Tensor, Tensor | None]:
        """The crops, and where both steps together put the points of the frames."""
        return self.steps().mapped(images, generator)


def operate(levels: Tensor, operation: Tensor, magnitude: Tensor, sign: Tensor, fill: Sequence[float]) -> Tensor:
    """Do ``operation: (B,)`` (an index into OPERATIONS, -1 for none) to ``levels: (B, 3, H, W)`` in 0 .. 255.

    ``magnitude: (B,)`` lies in [0, 10], ``sign: (B,)`` is -1 or 1.
    """
    share = magnitude / 10
    factor = (1 + sign * share * 0.9).clamp(min=0.1)
    first_blend, first_map = OPERATIONS.index("Color"), OPERATIONS.index("Rotate")
    tabled, mapped = (operation >= 0) & (operation < first_blend), operation >= first_map
    levels = _among(tabled, _tabled, levels, operation, share, factor)
    levels = _among((operation >= first_blend) & ~mapped, _blended, levels, operation, factor)
    return _among(mapped, partial(_mapped, fill=fill), levels, operation, sign * share)


def _among(drawn: Tensor, do: Callable[..., Tensor], levels: Tensor, *draws: Tensor) -> Tensor:
    """``do(levels, *draws)``, which leaves alone what is not ``drawn: (B,)``: a CPU, which can look, skips that."""
    if levels.device.type != "cpu" or drawn.all():
        return do(levels, *draws)
    if not drawn.any():
        return levels
    levels = levels.clone()
    levels[drawn] = do(levels[drawn], *(draw[drawn] for draw in draws))
    return levels


def _grey(levels: Tensor) -> Tensor:
    """Pillow's grey of ``(B, 3, H, W)``, in whole levels."""
    grey = (levels * constant(GREY, levels.device)[:, None, None]).sum(1, keepdim=True)
    return ((grey + 32768) / 65536).floor()


def _is(operation: Tensor, name: str, axes: int) -> Tensor:
    """``(B, 1, ...)`` bool with ``axes`` axes: the pictures that get this operation."""
    return (operation == OPERATIONS.index(name)).view(-1, *(1,) * (axes - 1))


def _tabled(levels: Tensor, operation: Tensor, share: Tensor, factor: Tensor) -> Tensor:
    """The operations that look at one value at a time: each gives a new level to each of the 256 old ones."""
    index = levels.long().flatten(2)
    level = torch.arange(256.0, device=index.device)
    counts = torch.zeros(*index.shape[:2], 256, device=index.device)
    counts.scatter_add_(2, index, torch.ones_like(index, dtype=counts.dtype))
    seen = (counts > 0).to(torch.uint8)
    low = seen.argmax(2, keepdim=True)
    high = 255 - seen.flip(2).argmax(2, keepdim=True)
    share, factor = share.view(-1, 1, 1), factor.view(-1, 1, 1)

    # the small shift undoes rounding just below a whole level
    stretched = ((level - low) * (255 / (high - low).clamp(min=1)) + 1e-3).floor()
    step = ((counts.sum(2, keepdim=True) - counts.gather(2, high)) / 255).floor()
    below = counts.cumsum(2) - counts
    equal = (((step / 2).floor() + below) / step.clamp(min=1)).floor()
    posterised = 2 ** (4 + (share * 4).floor())
    threshold = 256 - (share * 256).floor()
    mean = (_grey(levels).flatten(1).mean(1) + 0.5).floor().view(-1, 1, 1)
    tables = {
        "AutoContrast": torch.where(high > low, stretched, level),
        "Equalize": torch.where(step > 0, equal, level),
        "Invert": 255 - level,
        "Posterize": (level / posterised).floor() * posterised,
        "Solarize": torch.where(level < threshold, level, 255 - level),
        "SolarizeAdd": torch.where(level < 128, level + (share * 110).floor(), level),
        "Contrast": (mean + factor * (level - mean)).floor(),
        "Brightness": (factor * level).floor(),
    }
    chosen = level.expand_as(counts)
    for name, table in tables.items():
        chosen = torch.where(_is(operation, name, 3), table, chosen)
    return chosen.clamp(0, 255).gather(2, index).view_as(levels)


def _blended(levels: Tensor, operation: Tensor, factor: Tensor) -> Tensor:
    """Colour and sharpness: away from, or towards, the grey and the smoothed picture."""
    kernel = constant(SMOOTH, levels.device).expand(3, 1, 3, 3) / 13
    smooth = levels.clone()  # Pillow leaves the border as it is
    if min(levels.shape[-2:]) > 2:
        smooth[..., 1:-1, 1:-1] = F.conv2d(levels, kernel, groups=3).add_(0.5).floor_()
    colour, sharp = _is(operation, "Color", 4), _is(operation, "Sharpness", 4)
    base = torch.where(colour, _grey(levels), smooth)
    blend = (base + factor.view(-1, 1, 1, 1) * (levels - base)).floor().clamp(0, 255)
    return torch.where(colour | sharp, blend, levels)


def origins(operation: Tensor, amount: Tensor, rows: int, columns: int) -> Tensor:
    """The maps ``(B, 2, 3)`` of the affine operations from each point of the output to where it is taken from."""

    def by(name: str, most: float) -> Tensor:
        return torch.where(operation == OPERATIONS.index(name), amount * most, 0.0)

    angle, middle_x, middle_y = by("Rotate", math.pi / 6), columns / 2, rows / 2
    cos, sin = angle.cos(), angle.sin()
    x = (cos, by("ShearX", 0.3) - sin, middle_x - cos * middle_x + sin * middle_y + by("TranslateX", 0.45 * columns))
    y = (by("ShearY", 0.3) + sin, cos, middle_y - sin * middle_x - cos * middle_y + by("TranslateY", 0.45 * rows))
    return torch.stack([torch.stack(row, -1) for row in (x, y)], -2)


def _mapped(levels: Tensor, operation: Tensor, amount: Tensor, fill: Sequence[float]) -> Tensor:
    """Rotation (to 30 degrees), shear (to 0.3) and shift (to 0.45 of the side), from where each pixel is taken."""
    rows, columns = levels.shape[-2:]
    y = (torch.arange(rows, device=levels.device) + 0.5)[:, None]
    x = torch.arange(columns, device=levels.device) + 0.5

    def by(name: str, most: float) -> Tensor:
        return torch.where(_is(operation, name, 3), amount.view(-1, 1, 1) * most, 0.0)

    angle, (middle_y, middle_x) = by("Rotate", math.pi / 6), (rows / 2, columns / 2)
    dy, dx = y - middle_y, x - middle_x
    from_x = middle_x + angle.cos() * dx - angle.sin() * dy + by("ShearX", 0.3) * y + by("TranslateX", 0.45 * columns)
    from_y = middle_y + angle.sin() * dx + angle.cos() * dy + by("ShearY", 0.3) * x + by("TranslateY", 0.45 * rows)
    within = (from_x >= 0) & (from_x < columns) & (from_y >= 0) & (from_y < rows)
    places = torch.stack([from_x * (2 / columns) - 1, from_y * (2 / rows) - 1], dim=-1)
    moved = F.grid_sample(levels, places, mode="bicubic", padding_mode="border", align_corners=False)
    colour = (constant(fill, levels.device) * 255).round()[:, None, None]
    moved = torch.where(within[:, None], moved.round().clamp(0, 255), colour)
    still = operation < OPERATIONS.index("Rotate")
    return torch.where(still.view(-1, 1, 1, 1), levels, moved)
