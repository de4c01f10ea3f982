"""What each protocol trains, freezes and reads."""

from __future__ import annotations

import pytest
import torch
from timm.layers import DropPath
from torch import Tensor, nn

from mae.grid import Grid
from mae.heads.classifier import Classifier, set_drop_path
from mae.model import Encoder, Transformer

GRID = Grid.of(1, (16, 16), (1, 8, 8))
DEPTH = 3


def encoder(**options: bool) -> Encoder:
    torch.manual_seed(0)
    return Encoder(GRID, Transformer(16, DEPTH, 2), **options)  # type: ignore[arg-type]


def clips(seed: int = 0) -> Tensor:
    return torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def block(index: int) -> set[str]:
    prefix = f"encoder.blocks.{index}."
    return {prefix + name for name, _ in encoder().blocks[index].named_parameters()}


def tuned_names(tuned_blocks: float | None, pooling: str) -> set[str]:
    """The parameters that MAE Sec. 4.3 trains, written out."""
    head = {"head.weight", "head.bias"}
    norm = {f"{'' if pooling == 'mean' else 'encoder.'}norm.{kind}" for kind in ("weight", "bias")}
    if tuned_blocks is None:
        stem = {"encoder.positions", "encoder.class_token", "encoder.embed.weight", "encoder.embed.bias"}
        return head | norm | stem | block(0) | block(1) | block(2)
    parts: dict[float, set[str]] = {
        0: set(),
        0.5: norm | {name for name in block(2) if ".mlp." in name or ".norm2." in name},
        1: norm | block(2),
        2: norm | block(2) | block(1),
    }
    return head | parts[tuned_blocks]


@pytest.mark.parametrize("pooling", ["mean", "class"])
@pytest.mark.parametrize("tuned_blocks", [0, 0.5, 1, 2, None])
def test_training_changes_exactly_the_tuned_parameters(tuned_blocks: float | None, pooling: str) -> None:
    model = Classifier(encoder(), 5, pooling=pooling, tuned_blocks=tuned_blocks, head_std=0.5)
    before = {name: tensor.clone() for name, tensor in model.state_dict(keep_vars=False).items()}
    positions = model.encoder.positions.detach().clone()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
    model.train()
    nn.functional.cross_entropy(model(clips()), torch.arange(4)).backward()
    optimizer.step()
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == tuned_names(tuned_blocks, pooling)
    assert torch.equal(model.encoder.positions, positions) == (tuned_blocks is not None)


@pytest.mark.parametrize(("tuned_blocks", "live"), [(0, 0), (0.5, 1), (1, 2), (2, 4), (None, 4)])
def test_drop_path_is_active_in_tuned_blocks_only(tuned_blocks: float | None, live: int) -> None:
    model = encoder()
    set_drop_path(model, 0.5)
    classifier = Classifier(model, 5, tuned_blocks=tuned_blocks).train()
    paths = [module for module in classifier.modules() if isinstance(module, DropPath)]
    assert len(paths) == 4  # two in each block but the first, whose rate is 0
    assert [path.training for path in paths] == [False] * (4 - live) + [True] * live
    assert not any(module.training for module in classifier.eval().modules())


def test_drop_path_grows_linearly_over_depth() -> None:
    model = encoder()
    set_drop_path(model, 0.2)
    rates = [getattr(part, "drop_prob", 0.0) for b in model.blocks for part in (b.drop_path1, b.drop_path2)]
    assert rates == pytest.approx([0, 0, 0.1, 0.1, 0.2, 0.2])


def test_the_head_alone_reads_the_pretrained_norm() -> None:
    pretrained = encoder()
    nn.init.normal_(pretrained.norm.weight)
    latent = pretrained(GRID.patchify(clips()))
    for pooling, expected in (("mean", latent[:, 1:].mean(1)), ("class", latent[:, 0])):
        model = Classifier(pretrained, 5, pooling=pooling, tuned_blocks=0)
        torch.testing.assert_close(model.features(clips()), expected)
        assert isinstance(model.norm, nn.Identity)


@pytest.mark.parametrize("pooling", ["mean", "class"])
def test_a_probe_reads_nothing_untrained(pooling: str) -> None:
    """Every tensor that feeds a probe's features is pre-trained: whatever else there is changes nothing."""
    pretrained = {name for name, _ in encoder(mask_tokens=True).named_parameters()} | {"positions"}
    model = Classifier(encoder(mask_tokens=True), 5, pooling=pooling, tuned_blocks=0, norm_groups=1).eval()
    reference = model.features(clips())
    tensors = [*model.named_parameters(), *model.named_buffers()]
    for name, tensor in tensors:
        saved = tensor.detach().clone()
        with torch.no_grad():
            noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(0))
            tensor.add_(noise.to(tensor.dtype) + 1)
            moved = not torch.allclose(model.features(clips()), reference)
            tensor.copy_(saved)
        if name.startswith("encoder.") and name != "encoder.mask_token":
            assert moved, f"{name} feeds nothing"
        assert not moved or name.removeprefix("encoder.") in pretrained, f"{name} is not pre-trained"
    assert isinstance(model.norm, nn.BatchNorm1d)
    assert not list(model.norm.parameters())


def test_only_the_last_gradient_is_computed_when_little_is_tuned() -> None:
    model = Classifier(encoder(), 5, tuned_blocks=1)
    entering: list[bool] = []
    for index in range(DEPTH):
        model.encoder.blocks[index].register_forward_hook(lambda _m, _i, output: entering.append(output.requires_grad))
    model(clips())
    assert entering == [False, False, True]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tuned_blocks": 4}, "tuned_blocks=4 of an encoder with 3 blocks; choose 0, 0.5, or 1 to 3"),
        ({"tuned_blocks": 1.5}, "tuned_blocks=1.5"),
        ({"tuned_blocks": -1}, "tuned_blocks=-1"),
        ({"pooling": "max"}, "unknown pooling 'max'; choose mean or class"),
    ],
)
def test_an_impossible_classifier_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Classifier(encoder(), 5, **options)  # type: ignore[arg-type]


def test_class_pooling_needs_a_class_token() -> None:
    with pytest.raises(ValueError, match="needs an encoder with a class token"):
        Classifier(encoder(class_token=False), 5, pooling="class")
