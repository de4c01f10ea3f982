"""A step on a device does not wait: nothing is copied to it but the batch, and the host looks at nothing on it.

Steps run on fake CUDA tensors, which have shapes and devices and no values, so no card is needed. A mode below the
dispatcher sees what a step does up to its loss; backward passes and optimisers are torch's own and are not run here.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mae import constants
from mae.data.augment.clip_crops import MultiScaleCrop
from mae.data.augment.color import ColorJitter, Normalise
from mae.data.augment.compose import Compose
from mae.data.augment.crops import CenterCrop, FixedSizeCrop, RandomResizedCrop
from mae.data.augment.rand_augment import WholeFrameCrop, rand_augmented_crop
from mae.data.source import Augment, Batch, Images, Splits, View, sent
from mae.draws import Draws, Rows
from mae.grid import Grid
from mae.heads import fine_tuning
from mae.heads.fine_tuning import FineTune
from mae.heads.linear_probe import LinearProbe
from mae.masking import BlockWise, Frame, GridWise, Random, Strategy, Tube
from mae.methods import Method
from mae.methods.masked_autoencoder import DecoderShape, MaskedAutoencoder
from mae.methods.simmim import SimMIM
from mae.model import Encoder, Transformer
from mae.targets import ChannelNormalisedPixels, PatchNormalisedPixels
from mae.train import loop
from mae.train.loop import Runtime
from mae.train.optim import Recipe
from mae.train.parts import Parts, Step
from mae.train.pretrain import pretrain

CUDA = torch.device("cuda", 0)
MEAN, STD = [0.5, 0.5, 0.5], [0.25, 0.25, 0.25]
RECIPE = Recipe("adamw", 1e-3, 4, 3, 1, 0.05)
#: Operations whose result the host needs before it can go on.
LOOKS = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "equal", "is_nonzero")


class Watch(TorchDispatchMode):
    """It counts what makes the host wait, by name; what a source does to fetch its batch is counted as ``batch``."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()
        self.fetching = False

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        name = function.name().partition("::")[2].partition(".")[0]
        seen = [leaf.device.type for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        made = [leaf.device.type for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if name in ("_to_copy", "copy_", "_pin_memory") and len({*seen, *made}) > 1:
            self.found["batch" if self.fetching else f"{name} {seen} to {made}"] += 1
        masks = name in ("index", "index_put_") and any(
            isinstance(leaf, Tensor) and leaf.dtype == torch.bool for leaf in tree_leaves(args[1])
        )
        if masks or (name in LOOKS and "cuda" in seen) or (name == "repeat_interleave" and len(seen) == 1 == len(args)):
            self.found[name] += 1
        return result


class OnDevice(Draws):
    """Draws that say they live on the device; without values it does not matter where they do."""

    device = CUDA  # type: ignore[assignment]

    def __new__(cls, device: torch.device) -> OnDevice:
        return super().__new__(cls)

    def __init__(self, device: torch.device) -> None:
        super().__init__(torch.device("cpu"))


class Watched:
    """Pictures of which all that is done to fetch a batch is told to ``watch``."""

    def __init__(self, images: Images, watch: Watch) -> None:
        self.images, self.watch, self.classes = images, watch, images.classes

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, order: Iterable[Tensor], device: torch.device) -> Iterator[Batch]:
        batches = self.images.batches(order, device)
        while True:
            self.watch.fetching = True
            try:
                batch = next(batches, None)
            finally:
                self.watch.fetching = False
            if batch is None:
                return
            yield batch


def unfaked(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` with real tensors, for what reads values that lie on the host."""

    def real(*args: object) -> Any:
        with unset_fake_temporarily():
            return function(*args)

    return real


def whole(parts: Parts, batch: Batch, asked: Tensor, seed: int) -> Step:
    """A step of which all samples could be read; the numbers of those that could lie on the host."""
    return Step(batch, Rows.all(len(asked)), 1, len(asked), seed)


def fakes_cards() -> bool:
    """Whether this torch makes fake CUDA tensors where there is no card: 2.6 does not."""
    try:
        with FakeTensorMode():
            torch.zeros(2, device=CUDA).fill_(1.0)
    except RuntimeError:
        return False
    return True


pytestmark = pytest.mark.skipif(not fakes_cards(), reason="this torch makes no fake CUDA tensors without a card")


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    monkeypatch.setattr(loop, "Draws", OnDevice)
    monkeypatch.setattr(loop, "_finite_mean", lambda *_: 0.0)  # the look once in a logged stretch
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: tensor)
    monkeypatch.setattr(Tensor, "backward", lambda loss: None)  # the engine asks for a real card
    monkeypatch.setattr(nn.Module, "to", lambda module, device: module)  # modules are made where they are used
    monkeypatch.setattr(fine_tuning, "set_drop_path", unfaked(fine_tuning.set_drop_path))
    monkeypatch.setattr(Parts, "_step", unfaked(whole))
    monkeypatch.setattr(Rows, "between", lambda rows, start, stop: slice(start, stop))  # of all rows
    constants._held.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of autocast, that there is no card
        yield Watch()
    constants._held.cache_clear()


def steps(watch: Watch, resident: bool, clips: bool, train: Callable[[Watched, Runtime], object]) -> list[Counter[str]]:
    """What waits in each of three steps of ``train`` on pictures or clips that lie on the device, or on the host."""
    found: list[Counter[str]] = []

    def end(step: int, values: dict[str, float]) -> None:
        found.append(watch.found)
        watch.found = Counter()

    with FakeTensorMode(allow_non_fake_inputs=True):
        shape = (4, 3, *((4,) if clips else ()), 20, 26)
        pixels = torch.zeros(shape, dtype=torch.uint8, device=CUDA if resident else "cpu")
        labels = torch.zeros(4, dtype=torch.int64, device=pixels.device)
        with watch:
            train(Watched(Images(pixels, labels, ("a", "b")), watch), Runtime(0, CUDA, log_every=1, observe=end))
    return found


def encoder(clips: bool) -> Encoder:
    grid = Grid.of(4, (16, 16), (2, 4, 4)) if clips else Grid.of(1, (16, 16), (1, 4, 4))
    positions = "sincos_1d" if clips else "sincos_2d"
    return Encoder(grid, Transformer(16, 2, 2), class_token=not clips, positions=positions)


def autoencoder(clips: bool, mask: Strategy) -> Method:
    target = ChannelNormalisedPixels(STD) if clips else PatchNormalisedPixels()
    decoder = DecoderShape(1.0, 1, 2, positions="sincos_1d" if clips else "sincos_2d")
    return MaskedAutoencoder(encoder(clips), decoder=decoder, mask=mask, target=target)


CROP = RandomResizedCrop(16)
PRETRAININGS: dict[str, tuple[bool, Callable[[], Method], Augment]] = {
    "MAE": (False, lambda: autoencoder(False, Random(0.75)), Compose((CROP, ColorJitter()))),
    "MAE, blocks": (False, lambda: autoencoder(False, BlockWise(0.5)), FixedSizeCrop(16)),
    "MAE, grid": (False, lambda: autoencoder(False, GridWise(0.75)), CenterCrop(16)),
    "SimMIM": (False, lambda: SimMIM(encoder(False), mask=Random(0.5), target=PatchNormalisedPixels()), CROP),
    "VideoMAE": (True, lambda: autoencoder(True, Tube(0.75)), MultiScaleCrop(16, flip=True)),
    "VideoMAE, frames": (True, lambda: autoencoder(True, Frame(0.5)), MultiScaleCrop(16)),
}


@pytest.mark.parametrize("resident", [True, False], ids=["resident", "from the host"])
@pytest.mark.parametrize("name", PRETRAININGS)
def test_a_pre_training_step_copies_its_batch_and_waits_for_nothing(name: str, resident: bool, watch: Watch) -> None:
    clips, method, augment = PRETRAININGS[name]

    def train(source: Watched, runtime: Runtime) -> None:
        view = Compose((augment, Normalise(MEAN, STD)))
        with torch.device(CUDA):
            made = method()
        pretrain(made, source, view, RECIPE, runtime)

    first, *others = steps(watch, resident, clips, train)
    assert first.total()
    assert others == [Counter({"batch": 1 if resident else 2})] * 2


def on_device(make: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """``make`` on the device, where a run moves what is made on the host."""

    def made(*args: object) -> nn.Module:
        with torch.device(CUDA):
            return make(*args)

    return made


EVALUATIONS: dict[str, tuple[bool, FineTune | LinearProbe, Augment]] = {
    "fine-tuning": (
        False,
        FineTune(RECIPE, drop_path=0.5, mixup=0.8, cutmix=1.0, erasing=0.25),
        rand_augmented_crop(16),
    ),
    "fine-tuning clips": (
        True,
        FineTune(RECIPE, drop_path=0.5, mixup=0.8, cutmix=1.0, erasing=0.25, dropout=0.5),
        WholeFrameCrop(16),
    ),
    "probe": (
        False,
        LinearProbe(Recipe("lars", 0.1, 4, 3, 1, 0.0)),
        RandomResizedCrop(16, (0.08, 1.0), one_draw=True),
    ),
}


@pytest.mark.parametrize("resident", [True, False], ids=["resident", "from the host"])
@pytest.mark.parametrize("name", EVALUATIONS)
def test_an_evaluation_step_copies_its_batch_and_waits_for_nothing(name: str, resident: bool, watch: Watch) -> None:
    clips, head, augment = EVALUATIONS[name]

    def train(source: Watched, runtime: Runtime) -> None:
        view = Compose((augment, Normalise(MEAN, STD)))
        with pytest.MonkeyPatch.context() as patch:
            for module in ("fine_tuning", "probe"):
                patch.setattr(f"mae.heads.{module}.accuracy", lambda *_: 0.0)
            patch.setattr(type(head), "classifier", on_device(type(head).classifier))
            with torch.device(CUDA):
                made = encoder(clips)
            head(made, Splits(source, source, source, views=(View(source, (view,)),)), view, runtime)

    first, *others = steps(watch, resident, clips, train)
    assert first.total()
    assert others == [Counter({"batch": 1 if resident else 2})] * 2


def test_the_watch_sees_copies_looks_and_masks() -> None:
    watch = Watch()
    with FakeTensorMode() as fake, watch:
        values = torch.zeros(4, device=CUDA)
        values.new_tensor([1.0, 2.0])
        values.to("cpu")
        for look in (lambda: values.sum().item(), lambda: values[values > 0], lambda: values.nonzero()):
            with pytest.raises(Exception, match=r"aten\.|dynamic|data"):
                look()
        assert fake is not None
    assert watch.found.total() >= 2


def test_what_is_sent_goes_through_pinned_memory_and_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    class Told(Tensor):
        def pin_memory(self) -> Tensor:  # type: ignore[override]
            calls.append("pinned")
            return self

        def to(self, device: torch.device, non_blocking: bool = False) -> Tensor:  # type: ignore[override]
            calls.append(f"to {device.type}, non_blocking={non_blocking}")
            return self

    sent(torch.zeros(2).as_subclass(Told), CUDA)
    assert calls == ["pinned", "to cuda, non_blocking=True"]
