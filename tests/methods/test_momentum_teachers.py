"""MoCo v3 and DINO against their formulas written out, their schedules and teachers, and what a collapse looks like."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mae.data.augment.compose import Compose
from mae.data.augment.crops import CenterCrop, RandomResizedCrop
from mae.data.source import Images
from mae.grid import Grid
from mae.methods import Method
from mae.methods.collapse import COLLAPSED, spread_of
from mae.methods.dino import DINO
from mae.methods.moco_v3 import MoCoV3
from mae.methods.teacher import cosine_momentum, represent
from mae.model import Encoder, Transformer
from mae.train.checkpoint import Checkpoints
from mae.train.loop import Runtime
from mae.train.optim import Recipe
from mae.train.pretrain import pretrain

GRID = Grid.of(1, (16, 16), (1, 4, 4))
CLIPS = Grid.of(4, (16, 16), (2, 4, 4))


def encoder(grid: Grid = GRID, **options: bool) -> Encoder:
    torch.manual_seed(0)
    return Encoder(grid, Transformer(16, 1, 2), positions="sincos_2d" if grid.t == 1 else "sincos_1d", **options)


def moco(grid: Grid = GRID, **options: bool) -> MoCoV3:
    return MoCoV3(encoder(grid, **options), hidden=24, width=8)


def dino(grid: Grid = GRID, **values: float) -> DINO:
    crop = RandomResizedCrop((8, 8), (0.05, 0.25), flip=False)
    settings = {"local_views": 2, "prototypes": 12, "hidden": 24, "bottleneck": 8} | values
    return DINO(encoder(grid), local_crop=crop, **settings)  # type: ignore[arg-type]


def views(method: Method, count: int = 4, seed: int = 0) -> list[Tensor]:
    """Noise in the shapes that a method's views have."""
    generator = Generator().manual_seed(seed)
    grid = method.encoder.grid
    frames = () if grid.t == 1 else (grid.t * grid.patch[0],)
    sides = [16] * 2 + [8] * (method.views - 2)
    return [torch.randn(count, 3, *frames, side, side, generator=generator) for side in sides]


def moved(method: MoCoV3 | DINO) -> None:
    """Tell teacher and student apart, as after some steps."""
    with torch.no_grad():
        for parameter in method.teacher.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=Generator().manual_seed(1)))


def gradients(method: Method) -> dict[str, Tensor]:
    found = {name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None}
    method.zero_grad()
    return found


def moco_written_out(method: MoCoV3, seen: list[Tensor]) -> Tensor:
    """Algorithm 1 of the paper, sample by sample."""
    queries = [method.predictor(method.projector(represent(method.encoder, view))) for view in seen]
    with torch.no_grad():
        keys = [method.teacher.head(represent(method.teacher.encoder, view)) for view in seen]
    total = torch.zeros(())
    for query, key in ((queries[0], keys[1]), (queries[1], keys[0])):
        for i in range(len(query)):
            similar = torch.stack([torch.cosine_similarity(query[i], other, dim=0) for other in key]) / 0.2
            total = total - 2 * 0.2 * (similar[i] - similar.exp().sum().log()) / len(query)
    return total


def dino_written_out(method: DINO, seen: list[Tensor], temperature: float, centre: Tensor) -> Tensor:
    """Algorithm 1 of the paper with multi-crop: each view of the student against other large ones of the teacher."""

    def head(module: nn.Module, features: Tensor) -> Tensor:
        hidden = module.layers(features)
        hidden = hidden / hidden.norm(dim=-1, keepdim=True)
        directions = module.directions / module.directions.norm(dim=-1, keepdim=True)
        return hidden @ directions.T

    with torch.no_grad():
        teachers = [head(method.teacher.head, represent(method.teacher.encoder, view)) for view in seen[:2]]
    students = [head(method.head, represent(method.encoder, view)) for view in seen[:2]]
    for view in seen[2:]:
        tokens = method.local_tokens(view)
        students.append(head(method.head, method.encoder.transform(tokens)[:, 0]))
    terms = []
    for t, teacher in enumerate(teachers):
        for s, student in enumerate(students):
            if s != t:
                p = torch.exp((teacher - centre) / temperature)
                q = torch.exp(student / 0.1)
                p, q = p / p.sum(1, keepdim=True), q / q.sum(1, keepdim=True)
                terms.append(-(p * q.log()).sum(1).mean())
    return sum(terms, torch.zeros(())) / len(terms)


def assert_is(method: Method, seen: list[Tensor], written: Tensor) -> dict[str, Tensor]:
    """Hold the loss of ``seen`` and its gradients, which are returned, to the formula ``written`` out."""
    written.backward()
    wanted = gradients(method)
    loss = method.loss(seen, Generator())
    loss.backward()
    torch.testing.assert_close(loss, written)
    found = gradients(method)
    assert found.keys() == wanted.keys()
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], atol=1e-5, rtol=1e-4)
    return found


def test_moco_v3_is_its_algorithm_in_loss_and_gradient() -> None:
    method = moco()
    moved(method)
    seen = views(method)
    found = assert_is(method, seen, moco_written_out(method, seen))
    assert not any(name.startswith(("teacher.", "encoder.embed.")) for name in found)


def test_dino_is_its_algorithm_in_loss_gradient_and_centre() -> None:
    method = dino(wait=0.0, warm_up=0.5)
    moved(method)
    method.done.fill_(0.25)
    seen, centre = views(method), torch.randn(1, 12, generator=Generator().manual_seed(2))
    method.centre.copy_(centre)
    assert_is(method, seen, dino_written_out(method, seen, 0.055, centre))
    teachers = torch.cat([method.teacher(view) for view in seen[:2]])
    torch.testing.assert_close(method.centre, 0.9 * centre + 0.1 * teachers.mean(0, keepdim=True))


def test_dinos_directions_wait_and_its_teacher_sharpens_as_published() -> None:
    method = dino()
    method.loss(views(method), Generator()).backward()
    assert torch.count_nonzero(gradients(method)["head.directions"]) == 0
    method.after_step(4 / 400)
    method.loss(views(method), Generator()).backward()
    assert torch.count_nonzero(gradients(method)["head.directions"]) > 0
    published = {0: 0.04, 25: 0.055, 50: 0.07, 400: 0.07}
    for epoch, temperature in published.items():
        method.done.fill_(epoch / 400)
        assert float(method.teacher_temperature()) == pytest.approx(temperature)


@pytest.mark.parametrize("start", [0.99, 0.996])
def test_the_momentum_rises_to_one_along_half_a_cosine(start: float) -> None:
    for done in (0.0, 0.25, 0.5, 1.0):
        wanted = 1 - (1 - start) * (math.cos(math.pi * done) + 1) / 2
        assert cosine_momentum(start, done) == pytest.approx(wanted)
    assert cosine_momentum(start, 0.0) == pytest.approx(start)
    assert cosine_momentum(start, 1.0) == 1


@pytest.mark.parametrize("build", [moco, dino])
def test_two_steps_of_a_teacher_are_the_formula(build: Callable[[], MoCoV3 | DINO]) -> None:
    method = build()
    head = method.projector if isinstance(method, MoCoV3) else method.head
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1)
    student = {**{f"encoder.{k}": v for k, v in method.encoder.named_parameters()},
               **{f"head.{k}": v for k, v in head.named_parameters()}}  # fmt: skip
    wanted = {name: p.clone() for name, p in method.teacher.named_parameters()}
    for step in (1, 2):
        method.loss(views(method, seed=step), Generator()).backward()
        optimizer.step()
        optimizer.zero_grad()
        method.after_step(step / 10)
        m = 1 - (1 - method.momentum) * (math.cos(math.pi * step / 10) + 1) / 2
        wanted = {name: m * p + (1 - m) * student[name].detach() for name, p in wanted.items()}
    for name, parameter in method.teacher.named_parameters():
        torch.testing.assert_close(parameter, wanted[name], msg=name)
        assert not parameter.requires_grad


@pytest.mark.parametrize("grid", [GRID, CLIPS])
@pytest.mark.parametrize("build", [moco, dino])
def test_a_step_costs_what_torch_counts(build: Callable[[Grid], Method], grid: Grid) -> None:
    method = build(grid)
    seen = views(method, 2)
    forward, step = FlopCounterMode(display=False), FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), forward:
        method.loss(seen, Generator())
    assert forward.get_total_flops() / 2 == pytest.approx(method.flops(), rel=0.01)
    with sdpa_kernel(SDPBackend.MATH), step:
        method.loss(seen, Generator()).backward()
    assert step.get_total_flops() / 2 == pytest.approx(method.sample_flops(), rel=0.01)


def pictures(count: int = 64) -> Images:
    """Smooth random pictures."""
    coarse = torch.rand(count, 3, 3, 3, generator=Generator().manual_seed(0))
    pixels = (nn.functional.interpolate(coarse, (16, 16), mode="bilinear") * 255).byte()
    return Images(pixels, torch.full((count,), -1), ())


AUGMENT = Compose((RandomResizedCrop((16, 16), (0.5, 1.0), flip=False),))


@pytest.mark.parametrize("build", [moco, dino])
def test_a_training_that_was_stopped_goes_on_to_the_same_weights_of_student_teacher_and_centre(
    build: Callable[[], Method], tmp_path: Path
) -> None:
    recipe = Recipe("adamw", 1e-2, 16, 3, 1, 0.1)
    whole = build()
    pretrain(whole, pictures(), AUGMENT, recipe, Runtime(0))

    class Killed(Exception):
        pass

    def die(steps: float) -> None:
        if steps >= 7 / 12:
            raise Killed

    half = build()
    after, half.after_step = half.after_step, lambda done: (after(done), die(done))  # type: ignore[assignment, func-returns-value]
    runtime = Runtime(0, checkpoints=Checkpoints(tmp_path, every=0.0), log_every=1)
    with pytest.raises(Killed):
        pretrain(half, pictures(), AUGMENT, recipe, runtime)
    resumed = build()
    pretrain(resumed, pictures(), AUGMENT, recipe, runtime)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_a_small_crop_sees_the_positions_of_the_whole_picture_at_half_the_resolution() -> None:
    method = dino()
    tokens = method.local_tokens(torch.zeros(1, 3, 8, 8))
    table = method.encoder.positions[0].reshape(1, 4, 4, 16).permute(0, 3, 1, 2)
    wanted = nn.functional.interpolate(table, (2, 2), mode="bicubic").flatten(2)[0].T
    embedded = method.encoder.embed(torch.zeros(1, 4, 48))[0]
    torch.testing.assert_close(tokens[0, 1:], embedded + wanted)


def test_a_spread_tells_a_collapse_from_directions_drawn_evenly() -> None:
    drawn = torch.randn(4000, 32, generator=Generator().manual_seed(0))
    assert spread_of(drawn).feature_std == pytest.approx(1, abs=0.02)
    assert spread_of(drawn).feature_rank == pytest.approx(32, abs=0.5)
    line = torch.linspace(-1, 1, 100)[:, None] * drawn[:1] + drawn[1:2]
    assert spread_of(line).feature_rank == pytest.approx(1, abs=1e-3)
    assert spread_of(drawn[:1].expand(100, -1)) == (pytest.approx(0, abs=1e-6), pytest.approx(1, abs=1e-3))


def test_dino_without_centring_collapses_and_its_spread_says_so() -> None:
    """One direction wins for all samples; with centring the same steps keep samples apart."""
    found, many = {}, pictures(256)
    for centred in (True, False):
        sharp = {"teacher_temperature": 0.04, "momentum": 0.9, "wait": 0.0}
        method = dino(centre_momentum=0.9 if centred else 1.0, local_views=0, prototypes=32, **sharp)
        pretrain(method, many, AUGMENT, Recipe("adamw", 2.4e-2, 32, 15, 1, 0.0), Runtime(0))
        with torch.no_grad():
            found[centred] = spread_of(method.signature(CenterCrop((16, 16))(many.pixels, Generator())))
    assert found[True].feature_std > 10 * COLLAPSED
    assert found[False].feature_std < 0.01 * COLLAPSED


class Itself(nn.Module):
    """The student in the place of its teacher: gradients flow through the keys."""

    def __init__(self, method: MoCoV3) -> None:
        super().__init__()
        self.student = [method]

    def forward(self, views: Tensor) -> Tensor:
        (method,) = self.student
        keys: Tensor = method.projector(represent(method.encoder, views))
        return keys

    def follow(self, *given: object) -> None:
        pass


def test_moco_v3_keeps_samples_apart_without_predictor_and_stop_gradient() -> None:
    """Unlike BYOL it has other samples to tell each from, so neither is what holds it up."""
    found, many = [], pictures(256)
    for without in (False, True):
        method = moco()
        if without:
            method.predictor, method.teacher = nn.Sequential(), Itself(method)  # type: ignore[assignment]
        pretrain(method, many, AUGMENT, Recipe("adamw", 2.4e-2, 32, 15, 1, 0.0), Runtime(0))
        with torch.no_grad():
            found.append(spread_of(method.signature(CenterCrop((16, 16))(many.pixels, Generator()))))
    assert min(spread.feature_std for spread in found) > 50 * COLLAPSED
    assert min(spread.feature_rank for spread in found) > 4


def test_values_that_do_not_fit_are_refused_before_there_are_weights() -> None:
    with torch.device("meta"):
        with pytest.raises(ValueError, match=r"local crops of 32x32 pixels are larger than the views; take less"):
            DINO(encoder(), local_crop=RandomResizedCrop((32, 32)))
        with pytest.raises(ValueError, match="height 10 is not a multiple"):
            DINO(encoder(), local_crop=RandomResizedCrop((10, 10)))
        with pytest.raises(ValueError, match="temperature=0"):
            MoCoV3(encoder(), temperature=0)
        with pytest.raises(ValueError, match="temperature must be above 0"):
            DINO(encoder(), local_crop=RandomResizedCrop((8, 8)), teacher_temperature=0)
