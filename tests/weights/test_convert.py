"""What ``convert`` writes is opened by the other library, gives there what it gives here, and comes back unchanged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from mae.grid import Grid
from mae.masking import Mask, Random, Strategy, Tube
from mae.methods.masked_autoencoder import DecoderShape, MaskedAutoencoder
from mae.model import Encoder, Transformer
from mae.targets import Pixels
from mae.train.checkpoint import Checkpoints
from mae.weights import adapt, adapt_decoder, load, read, read_decoder, trained
from mae.weights.__main__ import main
from tests.weights.test_read import latent, randomised

SIZES = [
    pytest.param(16, 2, 2, 8, 16, id="tiny"),
    pytest.param(768, 12, 12, 16, 32, id="B", marks=pytest.mark.slow),
    pytest.param(1024, 24, 16, 16, 32, id="L", marks=pytest.mark.slow),
]


def model_of(clips: bool, width: int, depth: int, heads: int, patch: int, size: int) -> MaskedAutoencoder:
    grid = Grid.of(4 if clips else 1, (size, size), (2 if clips else 1, patch, patch))
    positions = "sincos_1d" if clips else "sincos_2d"
    encoder = Encoder(grid, Transformer(width, depth, heads), class_token=not clips, positions=positions)
    decoder = DecoderShape(0.5, 1, 2, embed_bias=not clips, positions=positions)
    mask: Strategy = Tube(0.5) if clips else Random(0.5)
    return MaskedAutoencoder(encoder, decoder=decoder, mask=mask, target=Pixels())


def drawn(model: MaskedAutoencoder) -> MaskedAutoencoder:
    """Every parameter drawn anew, so that activations keep their size; keys of clips have no bias, as elsewhere."""
    randomised(model)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
        if name.endswith("qkv.bias") and not model.encoder.prefix:
            parameter.data[len(parameter) // 3 : 2 * len(parameter) // 3] = 0
    return model


def saved(model: MaskedAutoencoder, folder: Path, target: str = "mae.targets.Pixels") -> Path:
    """The folder of weights that a run leaves, as far as they are read."""
    encoder, grid, decoder = model.encoder, model.encoder.grid, model.decoder.shape
    spec: dict[str, Any] = {
        "model": {
            "patch": list(grid.patch),
            "encoder": {"width": encoder.shape.width, "depth": encoder.shape.depth, "heads": encoder.shape.heads},
            "positions": encoder.table,
        },
        "data": {
            "source": {"_target_": "somewhere"},
            "frames": grid.t * grid.patch[0],
            "channels": 3,
            "input_size": [grid.h * grid.patch[1], grid.w * grid.patch[2]],
            "mean": [0.5] * 3,
            "std": [0.25] * 3,
        },
        "method": {"decoder": {"heads": decoder.heads}, "target": {"_target_": target}},
        "scale": "smoke",
        "seed": 0,
    }
    Checkpoints(folder).save(model.state_dict(), {"step": 1, "spec": spec})
    return folder


def pixels(model: MaskedAutoencoder) -> Tensor:
    grid = model.encoder.grid
    frames = (grid.t * grid.patch[0],) if grid.t > 1 else ()
    return torch.randn(2, 3, *frames, grid.h * grid.patch[1], grid.w * grid.patch[2])


def assert_equal(ours: nn.Module, again: nn.Module) -> None:
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in ours.state_dict().items())


@pytest.mark.parametrize("clips", [False, True], ids=["pictures", "clips"])
@pytest.mark.parametrize(("width", "depth", "heads", "patch", "size"), SIZES)
def test_transformers_opens_it_and_gives_equal_features_and_reconstructions(
    clips: bool, width: int, depth: int, heads: int, patch: int, size: int, tmp_path: Path
) -> None:
    import transformers

    model = drawn(model_of(clips, width, depth, heads, patch, size))
    source, to = saved(model, tmp_path / "run"), tmp_path / "out"
    assert main(["convert", str(source), str(to), "format=transformers"]) == 0
    kind = transformers.VideoMAEForPreTraining if clips else transformers.ViTMAEForPreTraining
    twin, report = kind.from_pretrained(to, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    twin.eval()
    grid, inputs = model.encoder.grid, pixels(model)
    with torch.no_grad():
        if clips:
            found = twin.videomae(inputs.transpose(1, 2)).last_hidden_state
        else:
            twin.config.mask_ratio = twin.vit.config.mask_ratio = 0.0
            noise = torch.arange(float(grid.num_patches)).expand(2, -1)
            found = twin.vit(inputs, noise=noise).last_hidden_state
        torch.testing.assert_close(found, latent(model.encoder, inputs), rtol=1e-6, atol=1e-6)
        if not clips:  # the norm of VideoMAE's decoder has another epsilon there
            twin.config.mask_ratio = twin.vit.config.mask_ratio = 0.5
            noise = torch.rand(2, grid.num_patches)
            mask = Mask.lowest(noise, grid.num_patches // 2)
            expected = model.predict(grid.patchify(inputs), mask, slice(None))
            logits = twin(inputs, noise=noise).logits
            logits = logits.gather(1, mask.drop.unsqueeze(-1).expand(-1, -1, logits.shape[-1]))
            torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    again = model_of(clips, width, depth, heads, patch, size)
    load(again.encoder, adapt(read(to), again.encoder))
    load(again.decoder, adapt_decoder(read_decoder(to), again.decoder))
    assert_equal(model, again)


@pytest.mark.parametrize(("width", "depth", "heads", "patch", "size"), SIZES)
def test_timm_opens_it_and_gives_equal_features(
    width: int, depth: int, heads: int, patch: int, size: int, tmp_path: Path
) -> None:
    model = drawn(model_of(False, width, depth, heads, patch, size))
    source, to = saved(model, tmp_path / "run"), tmp_path / "out"
    assert main(["convert", str(source), str(to), "format=timm"]) == 0
    twin = timm.create_model(
        "vit_base_patch16_224",
        img_size=size,
        patch_size=patch,
        embed_dim=width,
        depth=depth,
        num_heads=heads,
        num_classes=0,
        checkpoint_path=str(to / "model.safetensors"),
    ).eval()
    inputs = pixels(model)
    with torch.no_grad():
        found = twin.forward_features(inputs)
    torch.testing.assert_close(found, latent(model.encoder, inputs), rtol=1e-6, atol=1e-6)
    again = model_of(False, width, depth, heads, patch, size)
    load(again.encoder, adapt(read(to), again.encoder))
    assert_equal(model.encoder, again.encoder)


def test_an_own_folder_is_converted_again(tmp_path: Path) -> None:
    source = saved(drawn(model_of(False, 16, 2, 2, 8, 16)), tmp_path / "run")
    assert main(["convert", str(source), str(tmp_path / "own"), "format=safetensors"]) == 0
    assert main(["convert", str(tmp_path / "own"), str(tmp_path / "one"), "format=timm"]) == 0
    assert main(["convert", str(source), str(tmp_path / "other"), "format=timm"]) == 0
    one, other = (tmp_path / name / "model.safetensors" for name in ("one", "other"))
    assert one.read_bytes() == other.read_bytes()
    assert "smoke" in (tmp_path / "one" / "README.md").read_text()


@pytest.mark.parametrize("kind", ["transformers", "safetensors"])
def test_a_file_from_elsewhere_is_converted_too(kind: str, tmp_path: Path) -> None:
    model = drawn(model_of(False, 16, 2, 2, 8, 16))
    source = saved(model, tmp_path / "run")
    assert main(["convert", str(source), str(tmp_path / "first"), "format=transformers"]) == 0
    (tmp_path / "first" / "manifest.json").unlink()
    assert main(["convert", str(tmp_path / "first"), str(tmp_path / "second"), f"format={kind}"]) == 0
    again = trained(tmp_path / "second").autoencoder(model.strategy)
    inputs = pixels(model)
    mask = model.strategy(2, model.encoder.grid, torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(again(inputs, mask), model(inputs, mask), rtol=1e-6, atol=1e-6)
    assert "it is assumed that colours are normalised" in (tmp_path / "second" / "README.md").read_text()


def table(folder: Path, seeds: str = "0=48.2 1=50.1") -> Path:
    cell = {"row": "8", "scale": "smoke", "metric": "ft", "mean": 49.15, "std": 1.3, "n": 2, "seeds": seeds}
    cell |= {"ci_low": 47.0, "ci_high": 51.3, "verdict": "trend only"}
    claim = {"claim": "ft[8] > ft[1]", "whose": "paper", "scale": "smoke", "verdict": "holds", "corrected": "undecided"}
    claim |= {"difference": 3.0, "ci_low": 1.0, "ci_high": 5.0, "level": 0.95, "n": 2}
    other = claim | {"claim": "ft[1] > ft[2]"}
    path = folder / "table.json"
    path.write_text(json.dumps({"table": "decoder_depth", "cells": [cell], "claims": [claim, other]}))
    return path


def test_a_report_puts_intervals_and_verdicts_into_card_and_manifest(tmp_path: Path) -> None:
    source = saved(model_of(False, 16, 2, 2, 8, 16), tmp_path / "run")
    words = [f"report={table(tmp_path)}", "row=8"]
    assert main(["convert", str(source), str(tmp_path / "out"), "format=timm", *words]) == 0
    told = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert told["license"] == "MIT"
    assert told["results"]["metrics"][0]["ci_high"] == 51.3
    assert [claim["claim"] for claim in told["results"]["claims"]] == ["ft[8] > ft[1]"]
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| ft | 49.15 | 47.00 to 51.30 | 2 | trend only |" in card
    assert "`ft[8] > ft[1]` (paper): holds; corrected: undecided." in card


@pytest.mark.parametrize(
    ("row", "seeds", "words"),
    [
        ("9", "0=1", "has no row '9' at the scale of the weights, smoke"),
        ("8", "1=50", "with the seed 0 of"),
    ],
)
def test_a_report_on_other_weights_is_refused(
    row: str, seeds: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = saved(model_of(False, 16, 2, 2, 8, 16), tmp_path / "run")
    told = [f"report={table(tmp_path, seeds)}", f"row={row}"]
    assert main(["convert", str(source), str(tmp_path / "out"), "format=timm", *told]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("source", "to", "kind", "words"),
    [
        ("run", "run", "timm", "exists; name a folder that does not"),
        ("run", "out", "onnx", "unknown format 'onnx': valid: safetensors, timm, transformers"),
        ("nowhere", "out", "timm", "it is not there; give a"),
        ("clips", "out", "timm", "choose format=transformers"),
    ],
)
def test_what_cannot_be_converted_is_said_in_one_sentence(
    source: str, to: str, kind: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved(model_of(False, 16, 2, 2, 8, 16), tmp_path / "run")
    saved(model_of(True, 16, 2, 2, 8, 16), tmp_path / "clips")
    assert main(["convert", str(tmp_path / source), str(tmp_path / to), f"format={kind}"]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
