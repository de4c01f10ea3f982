"""The model on clips: against transformers' VideoMAE, against itself on pictures, and its frame selections."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mae.data.clips.sampling import Dense, Uniform
from mae.frames import CentreFrame, FrameSelection, SameFrames, TwiceTheFrames
from mae.grid import Grid
from mae.heads.classifier import Classifier
from mae.masking import Frame, Mask, Random, Strategy, Tube
from mae.methods.masked_autoencoder import DecoderShape, MaskedAutoencoder
from mae.model import Encoder, Transformer
from mae.targets import PCA, ChannelNormalisedPixels, PatchNormalisedPixels, Pixels, Target

GRID = Grid.of(8, (32, 16), (2, 8, 8))  # 4 slots of 4 x 2 patches
STD = (0.229, 0.224, 0.225)
TUBE = Tube(0.75)


def build(
    target: Target | None = None,
    frames: FrameSelection | None = None,
    grid: Grid = GRID,
    class_token: bool = False,
    positions: str = "sincos_1d",
) -> MaskedAutoencoder:
    encoder = Encoder(grid, Transformer(48, 2, 4), class_token=class_token, positions=positions)
    return MaskedAutoencoder(
        encoder,
        decoder=DecoderShape(2 / 3, 2, 4, embed_bias=False, positions=positions),
        mask=TUBE,
        target=target or ChannelNormalisedPixels(STD),
        frames=frames or SameFrames(),
    )


def draw(strategy: Strategy = TUBE, batch: int = 3, grid: Grid = GRID) -> Mask:
    return strategy(batch, grid, torch.Generator().manual_seed(0))


def twin(model: nn.Module, kind: str, **options: object) -> nn.Module:
    """A model of transformers of this ``kind`` that holds the same weights; its norms get the eps of the papers."""
    import transformers

    config = transformers.VideoMAEConfig(
        image_size=(32, 16),
        patch_size=8,
        num_frames=8,
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=192,
        decoder_hidden_size=32,
        decoder_num_hidden_layers=2,
        decoder_num_attention_heads=4,
        decoder_intermediate_size=128,
        layer_norm_eps=1e-6,
        attn_implementation="eager",
        **options,
    )
    found: nn.Module = getattr(transformers, kind)(config)
    for module in found.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-6
    with torch.no_grad():
        for ours, theirs in pairs(model, found):
            theirs.copy_(ours)
    return found


def pairs(model: nn.Module, other: nn.Module, grad: bool = False) -> list[tuple[Tensor, Tensor]]:
    """Every parameter of transformers' model beside ours; their keys have no bias."""
    names = dict(other.named_parameters())
    found: list[tuple[Tensor, Tensor]] = []

    def pair(ours: nn.Parameter, name: str, part: slice = slice(None)) -> None:
        theirs = names.pop(name)
        value, counterpart = (ours.grad, theirs.grad) if grad else (ours.detach(), theirs)
        assert value is not None
        assert counterpart is not None
        value = value[part]
        if value.shape != counterpart.shape:  # a convolution: (D, C, pt, p, p) for our (D, pt p p C)
            value = value.reshape(len(value), 2, 8, 8, 3).permute(0, 4, 1, 2, 3)
        found.append((value, counterpart))

    encoder, width = model.encoder, 48
    stacks = [(encoder, "videomae.encoder.layer")]
    modules = [(encoder.embed, "videomae.embeddings.patch_embeddings.projection")]
    if isinstance(model, MaskedAutoencoder):
        decoder = model.decoder
        pair(decoder.mask_token, "mask_token")
        pair(decoder.embed.weight, "encoder_to_decoder.weight")
        modules += [
            (encoder.norm, "videomae.layernorm"),
            (decoder.norm, "decoder.norm"),
            (decoder.head, "decoder.head"),
        ]
        stacks.append((decoder, "decoder.decoder_layers"))
    else:
        modules += [(model.norm, "fc_norm"), (model.head, "classifier")]
    for stack, prefix in stacks:
        for i, block in enumerate(stack.blocks):
            width = stack.shape.width
            for j, part in enumerate(("query", "key", "value")):
                rows = slice(j * width, (j + 1) * width)
                pair(block.attn.qkv.weight, f"{prefix}.{i}.attention.attention.{part}.weight", rows)
                if part != "key":
                    pair(block.attn.qkv.bias, f"{prefix}.{i}.attention.attention.{part}.bias", rows)
            modules += [
                (block.attn.proj, f"{prefix}.{i}.attention.output.dense"),
                (block.mlp.fc1, f"{prefix}.{i}.intermediate.dense"),
                (block.mlp.fc2, f"{prefix}.{i}.output.dense"),
                (block.norm1, f"{prefix}.{i}.layernorm_before"),
                (block.norm2, f"{prefix}.{i}.layernorm_after"),
            ]
    for module, name in modules:
        pair(module.weight, f"{name}.weight")
        pair(module.bias, f"{name}.bias")
    assert not names, sorted(names)
    return found


def randomise(model: nn.Module) -> None:
    for parameter in model.parameters():  # zeros and ones would hide a misplaced bias or norm
        nn.init.normal_(parameter, std=0.1)


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    assert (ours - theirs).norm() <= 1e-5 * theirs.norm() + 1e-9


@pytest.mark.parametrize("normalised", [True, False], ids=["normalised pixels", "pixels"])
def test_loss_and_every_gradient_agree_with_transformers_videomae(
    normalised: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.models.videomae import modeling_videomae

    if not normalised:  # theirs then predicts pixels in [0, 1], ours those that the encoder sees: make them the same
        monkeypatch.setattr(modeling_videomae, "IMAGENET_DEFAULT_MEAN", [0.0] * 3)
        monkeypatch.setattr(modeling_videomae, "IMAGENET_DEFAULT_STD", [1.0] * 3)
    torch.manual_seed(0)
    model = build(ChannelNormalisedPixels(STD) if normalised else Pixels())
    randomise(model)
    theirs = twin(model, "VideoMAEForPreTraining", norm_pix_loss=normalised, use_mean_pooling=False)
    clips, mask = torch.randn(3, 3, 8, 32, 16), draw()
    loss = model(clips, mask)
    expected = theirs(pixel_values=clips.transpose(1, 2), bool_masked_pos=mask.dropped()).loss
    assert_close(loss.detach(), expected.detach())
    loss.backward()
    expected.backward()
    for ours, other in pairs(model, theirs, grad=True):
        assert_close(ours, other)


def test_logits_and_gradients_agree_with_transformers_video_classification() -> None:
    torch.manual_seed(0)
    model = Classifier(build().encoder, 5, tune_positions=False)
    randomise(model)
    theirs = twin(model, "VideoMAEForVideoClassification", num_labels=5, use_mean_pooling=True).train()
    clips = torch.randn(2, 3, 8, 32, 16)
    logits, expected = model(clips), theirs(pixel_values=clips.transpose(1, 2)).logits
    assert_close(logits.detach(), expected.detach())
    logits.square().sum().backward()
    expected.square().sum().backward()
    for ours, other in pairs(model, theirs, grad=True):
        assert_close(ours, other)


@pytest.mark.parametrize(
    ("width", "depth", "heads", "decoder", "published"),
    [
        (384, 12, 6, (4, 3), 22e6),
        (768, 12, 12, (4, 6), 87e6),
        (1024, 24, 16, (12, 8), 305e6),
        (1280, 32, 16, (12, 8), 633e6),
    ],
    ids=["ViT-S", "ViT-B", "ViT-L", "ViT-H"],
)
def test_parameter_counts_are_those_of_transformers_and_of_the_model_zoo(
    width: int, depth: int, heads: int, decoder: tuple[int, int], published: float
) -> None:
    """Of a pre-training model against transformers, less the keys' biases; of a classifier against the model zoo."""
    from transformers import VideoMAEConfig, VideoMAEForPreTraining

    grid = Grid.of(16, (224, 224), (2, 16, 16))
    with torch.device("meta"):
        encoder = Encoder(grid, Transformer(width, depth, heads), class_token=False, positions="sincos_1d")
        shape = DecoderShape(0.5, *decoder, embed_bias=False, positions="sincos_1d")
        ours = MaskedAutoencoder(encoder, decoder=shape, mask=TUBE, target=Pixels())
        config = VideoMAEConfig(
            image_size=32,  # positions are no parameters, so a small grid counts alike
            num_frames=2,
            hidden_size=width,
            num_hidden_layers=depth,
            num_attention_heads=heads,
            intermediate_size=4 * width,
            decoder_hidden_size=width // 2,
            decoder_num_hidden_layers=shape.depth,
            decoder_num_attention_heads=shape.heads,
            decoder_intermediate_size=2 * width,
            use_mean_pooling=False,
        )
        theirs = VideoMAEForPreTraining(config)
    count, expected = (sum(p.numel() for p in model.parameters()) for model in (ours, theirs))
    assert count - depth * width - shape.depth * width // 2 == expected
    with torch.device("meta"):
        tuned = sum(p.numel() for p in Classifier(encoder, 400, tune_positions=False).parameters())
    assert tuned == pytest.approx(published, rel=0.02)


@pytest.mark.parametrize("class_token", [True, False])
def test_a_clip_of_one_frame_is_a_picture(class_token: bool) -> None:
    torch.manual_seed(0)
    grid = Grid.of(1, (32, 16), (1, 8, 8))
    model = build(PatchNormalisedPixels(), grid=grid, class_token=class_token, positions="sincos_2d")
    pictures, mask = torch.randn(3, 3, 32, 16), draw(Random(0.75), grid=grid)
    assert torch.equal(model(pictures, mask), model(pictures.unsqueeze(2), mask))
    classifier = Classifier(model.encoder, 5, head_std=0.5)
    assert torch.equal(classifier(pictures), classifier(pictures.unsqueeze(2)))


def test_one_slot_of_a_tube_is_a_random_mask() -> None:
    grid = Grid.of(1, (32, 32), (1, 8, 8))
    tube, random = (draw(kind(0.6, "mae"), grid=grid) for kind in (Tube, Random))
    assert torch.equal(tube.drop, random.drop)


def test_positions_stay_fixed_in_fine_tuning_unless_asked() -> None:
    fixed, tuned = (Classifier(build().encoder, 5, tune_positions=tune) for tune in (False, True))
    assert "encoder.positions" not in dict(fixed.named_parameters())
    assert "encoder.positions" in dict(tuned.named_parameters())
    assert all(p.requires_grad for p in fixed.parameters())
    assert torch.equal(fixed.encoder.positions, tuned.encoder.positions)


@pytest.mark.parametrize("frames", [CentreFrame(), TwiceTheFrames()], ids=repr)
def test_the_target_of_a_selection_is_cut_from_the_frames_it_names(frames: FrameSelection) -> None:
    """Each frame holds its own number, so a prediction of that number has no loss."""
    model = build(Pixels(), frames)
    sampled = 16 if isinstance(frames, TwiceTheFrames) else 8
    clips = torch.arange(float(sampled)).view(1, 1, -1, 1, 1).expand(2, 3, -1, 32, 16)
    mask = draw(batch=2)
    seen, target = model.patches(clips)
    assert seen.shape == (2, GRID.num_patches, GRID.patch_dim)
    _, asked = frames.predicted(mask, GRID)
    values = model.target(target, model.target_grid, asked)
    if isinstance(frames, CentreFrame):
        assert values.shape == (2, mask.drop.shape[1] // GRID.t, 8 * 8 * 3)
        assert values.unique().tolist() == [4.0]
    else:
        assert seen.unique().tolist() == [float(2 * i) for i in range(8)]
        slots = mask.drop // (GRID.h * GRID.w)
        frame = values.view(2, -1, 4, 8 * 8 * 3)
        assert torch.equal(frame, (4 * slots[..., None, None] + torch.arange(4)[:, None]).float().expand_as(frame))


@pytest.mark.parametrize("frames", [SameFrames(), CentreFrame(), TwiceTheFrames()], ids=repr)
@pytest.mark.parametrize("target", [Pixels(), PatchNormalisedPixels(), ChannelNormalisedPixels(STD)], ids=repr)
def test_every_selection_learns_and_can_be_pictured(frames: FrameSelection, target: Target) -> None:
    torch.manual_seed(0)
    model = build(target, frames)
    sampled = 16 if isinstance(frames, TwiceTheFrames) else 8
    clips = torch.randn(2, 3, sampled, 32, 16)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(6):
        optimizer.zero_grad()
        loss = model(clips, draw(batch=2))
        loss.backward()
        assert all(p.grad is not None for p in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    pictures = model.pictures(clips, seed=0)
    shown = frames.target(clips)
    assert torch.equal(pictures["original"], shown)
    assert all(picture.shape == shown.shape for picture in pictures.values())
    kept = pictures["masked"] != 0
    assert torch.equal(pictures["pasted"][kept], shown[kept])
    assert (pictures["reconstruction"][kept] == 0).all()


def test_dropped_patches_of_a_clip_leave_no_trace_in_its_reconstruction() -> None:
    torch.manual_seed(0)
    model = build(ChannelNormalisedPixels(STD))
    clips = torch.randn(2, 3, 8, 32, 16)
    first = model.pictures(clips, seed=0)
    changed = torch.where(first["masked"] == 0, clips * 3 + 1, clips)
    second = model.pictures(changed, seed=0)
    assert not torch.equal(first["original"], second["original"])
    assert torch.equal(first["reconstruction"], second["reconstruction"])


@pytest.mark.parametrize("strategy", [Random(0.75), Frame(0.5)], ids=repr)
def test_the_centre_frame_is_refused_for_masks_that_are_no_tube(strategy: Strategy) -> None:
    decoder = DecoderShape(0.5, 1, 2, positions="sincos_1d")
    with torch.device("meta"):
        encoder = Encoder(GRID, Transformer(16, 1, 2), positions="sincos_1d")
        MaskedAutoencoder(encoder, decoder=decoder, mask=TUBE, target=Pixels(), frames=CentreFrame())
        with pytest.raises(ValueError, match=r"the centre frame is predicted where its slot is.*choose mask=tube"):
            MaskedAutoencoder(encoder, decoder=decoder, mask=strategy, target=Pixels(), frames=CentreFrame())


def test_twice_the_frames_are_sampled_at_half_the_stride() -> None:
    assert TwiceTheFrames().sampling(Dense(16, 4)) == Dense(32, 2)
    assert SameFrames().sampling(Dense(16, 4)) == CentreFrame().sampling(Dense(16, 4)) == Dense(16, 4)
    for sampling in (Dense(16, 3), Uniform(16)):
        with pytest.raises(ValueError, match="with an even stride, not"):
            TwiceTheFrames().sampling(sampling)


def test_principal_components_of_clips_are_fitted_to_what_is_predicted() -> None:
    assert PCA(0.5).width(TwiceTheFrames().target_grid(GRID)) == GRID.patch_dim
    assert PCA(1.0).width(CentreFrame().target_grid(GRID)) == 8 * 8 * 3


def test_a_channel_without_a_deviation_is_refused() -> None:
    with pytest.raises(ValueError, match="is for 1 channels and the clips have 3"):
        ChannelNormalisedPixels((0.5,)).width(GRID)
    with pytest.raises(ValueError, match="must be a positive number for each channel"):
        ChannelNormalisedPixels((0.5, 0.0, 0.5))
    with pytest.raises(ValueError, match="a cube of one pixel has no standard deviation"):
        ChannelNormalisedPixels(STD).width(Grid.of(1, (2, 2), (1, 1, 1)))
