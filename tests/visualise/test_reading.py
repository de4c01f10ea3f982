"""What is drawn of an encoder is what its blocks compute."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mae.grid import Grid
from mae.visualise.reading import attention, components, spread
from tests.weights.test_read import clip_encoder, image_encoder, randomised


@pytest.mark.parametrize("clips", [False, True], ids=["of the class token", "of all patches"])
def test_attention_is_what_the_last_block_of_timm_weighs_values_by(clips: bool) -> None:
    encoder = clip_encoder() if clips else image_encoder()
    randomised(encoder)
    patches = torch.randn(2, encoder.grid.num_patches, encoder.grid.patch_dim)
    layer, seen = encoder.blocks[-1].attn, []
    layer.fused_attn = False  # so that the weights exist, and pass through the dropout

    def look(module: object, inputs: tuple[Tensor, ...]) -> None:
        seen.append(inputs[0])

    layer.attn_drop.register_forward_pre_hook(look)
    with torch.no_grad():
        encoder(patches)
    weights = seen[0].mean(2) if clips else seen[0][:, :, 0, 1:]
    torch.testing.assert_close(attention(encoder, patches), weights)


def test_components_are_those_of_a_singular_value_decomposition() -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 30, 8) * torch.arange(8, 0, -1.0)
    shown, share = components(features)
    flat = features.flatten(0, 1)
    centred = (flat - flat.mean(0)).double()
    left, values, _ = torch.linalg.svd(centred, full_matrices=False)
    assert share == pytest.approx(float((values[:3] ** 2).sum() / (values**2).sum()))
    for number in range(3):
        pair = torch.stack([shown.view(-1, 3)[:, number].double(), left[:, number]])
        assert abs(float(torch.corrcoef(pair)[0, 1])) > 0.99  # but for the cut at the percentiles, and the sign
    assert shown.min() == 0
    assert shown.max() == 1


def test_a_value_of_a_patch_fills_its_pixels() -> None:
    grid = Grid.of(4, (6, 4), (2, 3, 2))
    values = torch.arange(float(grid.num_patches)).view(1, -1, 1)
    clips = spread(values, grid)
    assert clips.shape == (1, 1, 4, 6, 4)
    patches = Grid.of(4, (6, 4), (2, 3, 2), channels=1).patchify(clips)
    assert torch.equal(patches, values.expand(-1, -1, 12))
