"""The names of ``mae`` are there, stay, and cost nothing until they are used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import mae
from mae import DataError, Mask, Random, Tube, autoencoder, encoder
from tests.weights.test_convert import drawn, model_of, saved

ROOT = Path(__file__).resolve().parent.parent


def test_the_names_of_the_library_are_these() -> None:
    """To take one away, or to rename it, breaks the code of others."""
    stable = "NUMERICS PCA BlockWise ChannelNormalisedPixels DataError DecoderShape Encoder Frame Grid GridWise Mask "
    stable += (
        "MaskedAutoencoder PatchNormalisedPixels Pixels Random SpecError Tokens Trained Transformer Tube UserError "
    )
    stable += "autoencoder encoder features_of trained"
    assert set(stable.split()) <= set(mae.__all__)
    assert all(getattr(mae, name) is not None for name in mae.__all__)
    assert set(mae.__all__) <= set(dir(mae))


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, mae; assert not {'torch', 'numpy', 'PIL', 'timm'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_an_unknown_name_is_no_attribute() -> None:
    with pytest.raises(ImportError, match="cannot import name 'nothing'"):
        from mae import nothing  # type: ignore[attr-defined]  # noqa: F401


def size_of(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_mae_by_name_has_the_published_size() -> None:
    with torch.device("meta"):
        assert size_of(autoencoder("vit_b16")) == 111_655_680


def test_videomae_by_name_has_the_size_that_transformers_gives_it() -> None:
    import transformers

    with torch.device("meta"):
        twin = transformers.VideoMAEForPreTraining(transformers.VideoMAEConfig(use_mean_pooling=False))
        keys = 12 * 768 + 4 * 384  # they have no bias there
        assert size_of(autoencoder("videomae_vit_b16")) == size_of(twin) + keys


def test_five_lines_give_a_mask_and_a_loss(tmp_path: Path) -> None:
    weights = saved(drawn(model_of(False, 16, 2, 2, 8, 16)), tmp_path / "run")
    model = autoencoder(weights=weights)
    mask = Random(0.5)(2, model.encoder.grid, torch.Generator().manual_seed(0))
    assert isinstance(mask, Mask)
    assert model(torch.randn(2, 3, 16, 16), mask).isfinite()
    assert encoder(weights=weights)(model.encoder.grid.patchify(torch.randn(2, 3, 16, 16))).shape == (2, 5, 16)


def test_a_model_masks_as_the_papers_do_unless_told() -> None:
    with torch.device("meta"):
        assert autoencoder("vit_b16").strategy == Random(0.75)
        assert autoencoder("videomae_vit_s16").strategy == Tube(0.9)
        assert autoencoder("vit_b16", mask=Random(0.5)).strategy == Random(0.5)


def test_without_a_name_and_without_weights_there_is_no_model() -> None:
    with pytest.raises(DataError, match="say which model: one of vit_b16"):
        encoder()
    with pytest.raises(DataError, match="height 100 is not a multiple of its patch size 16"):
        encoder("vit_b16", size=100)
