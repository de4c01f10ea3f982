"""Mask sampling as properties over a thousand draws."""

from __future__ import annotations

import pytest
import torch
from torch import Generator, Tensor

from mae.grid import Grid
from mae.masking import BlockWise, Frame, GridWise, Mask, Random, Strategy, Tube

PICTURE = Grid.of(1, (224, 224), (1, 16, 16))
CLIP = Grid.of(16, (96, 96), (2, 16, 16))
#: MAE Fig. 5's ratios (and Table 1's) with the visible patches of 196, by the rule of the released code.
VISIBLE_OF_196 = {0.1: 176, 0.2: 156, 0.3: 137, 0.4: 117, 0.5: 98, 0.6: 78, 0.7: 58, 0.75: 49, 0.8: 39, 0.9: 19}

CASES = [
    pytest.param(Random(), PICTURE, 49, id="random"),
    pytest.param(Random(0.9, "videomae"), CLIP, 29, id="random clip"),
    pytest.param(BlockWise(0.5), PICTURE, 98, id="block 50"),
    pytest.param(BlockWise(), PICTURE, 49, id="block 75"),
    pytest.param(BlockWise(), Grid.of(1, (24, 48), (1, 4, 4)), 18, id="block wide"),
    pytest.param(BlockWise(0.9), Grid.of(1, (24, 24), (1, 4, 4)), 3, id="block small"),
    pytest.param(GridWise(), PICTURE, 49, id="grid"),
    pytest.param(Tube(), CLIP, 8 * 4, id="tube"),
    pytest.param(Frame(), CLIP, 36, id="frame"),
]


def draw(strategy: Strategy, grid: Grid, batch: int = 1000, seed: int = 0) -> Mask:
    return strategy(batch, grid, Generator().manual_seed(seed))


@pytest.mark.parametrize(("strategy", "grid", "visible"), CASES)
def test_every_mask_has_the_exact_count_and_partitions_the_grid(strategy: Strategy, grid: Grid, visible: int) -> None:
    mask = draw(strategy, grid)
    assert strategy.visible(grid) == visible
    assert mask.keep.shape == (1000, visible)
    assert mask.keep.dtype == mask.drop.dtype == torch.int64
    both = torch.cat([mask.keep, mask.drop], dim=1).sort(dim=1).values
    assert torch.equal(both, torch.arange(grid.num_patches).expand(1000, -1))
    assert bool((mask.keep.diff() > 0).all())
    assert bool((mask.drop.diff() > 0).all())


@pytest.mark.parametrize(("strategy", "grid", "visible"), CASES)
def test_masks_are_a_function_of_the_generator_alone(strategy: Strategy, grid: Grid, visible: int) -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first, again = draw(strategy, grid, 50), draw(strategy, grid, 50)
    assert torch.equal(first.keep, again.keep)
    assert torch.equal(torch.random.get_rng_state(), before)
    if not isinstance(strategy, GridWise):
        assert not torch.equal(first.keep, draw(strategy, grid, 50, seed=1).keep)
        assert len(first.keep.unique(dim=0)) > 1


@pytest.mark.parametrize("strategy", [Random, BlockWise], ids=["random", "block"])
def test_counts_are_those_of_the_paper_at_every_ratio_and_differ_on_a_small_grid(strategy: type[Random]) -> None:
    small = Grid.of(1, (24, 24), (1, 4, 4))
    for ratio, visible in VISIBLE_OF_196.items():
        assert draw(strategy(ratio), PICTURE, 2).keep.shape[1] == visible
    assert len({draw(strategy(ratio), small, 2).keep.shape[1] for ratio in VISIBLE_OF_196}) == len(VISIBLE_OF_196)


@pytest.mark.parametrize(("ratio", "visible"), [(0.5, 98), (0.75, 49), (0.9, 20), (0.95, 10)])
def test_tubes_keep_the_published_number_of_patches_in_each_slot(ratio: float, visible: int) -> None:
    assert Tube(ratio).visible(Grid.of(16, (224, 224), (2, 16, 16))) == 8 * visible


@pytest.mark.parametrize(
    ("strategy", "grid"), [(Random(), PICTURE), (Random(), CLIP), (Tube(), CLIP), (Frame(), CLIP)], ids=repr
)
def test_every_patch_is_kept_equally_often(strategy: Strategy, grid: Grid) -> None:
    kept = (~draw(strategy, grid, 4000).dropped()).double().mean(0)
    p = strategy.visible(grid) / grid.num_patches
    assert (kept - p).abs().max() < 5 * (p * (1 - p) / 4000) ** 0.5


def dropped_plane(mask: Mask, grid: Grid) -> Tensor:
    return mask.dropped().view(-1, grid.t, grid.h, grid.w)


def border(strategy: Strategy, grid: Grid) -> float:
    """Mean number of neighbouring pairs of which just one is dropped."""
    flags = dropped_plane(draw(strategy, grid), grid)[:, 0]
    borders = (flags[:, 1:] != flags[:, :-1]).sum() + (flags[:, :, 1:] != flags[:, :, :-1]).sum()
    return borders.item() / len(flags)


@pytest.mark.parametrize("ratio", [0.5, 0.75])
def test_block_masks_have_far_shorter_borders_than_random_ones(ratio: float) -> None:
    assert border(BlockWise(ratio), PICTURE) < 0.5 * border(Random(ratio), PICTURE)


def test_block_masks_favour_no_side_of_the_picture() -> None:
    flags = dropped_plane(draw(BlockWise(0.5), PICTURE), PICTURE)[:, 0].double().mean(0)
    assert flags[7, 7] > flags[0, 0] > 0, "rectangles cover the middle more often than a corner, and corners sometimes"
    for mirrored in (flags.flip(0), flags.flip(1), flags.T):
        assert (flags - mirrored).abs().max() < 0.12


def test_grid_keeps_one_patch_of_every_cell_and_always_the_same() -> None:
    kept = ~dropped_plane(draw(GridWise(), PICTURE, 3), PICTURE)[:, 0]
    cells = kept.view(3, 7, 2, 7, 2).sum((2, 4))
    assert torch.equal(cells, torch.ones_like(cells))
    assert torch.equal(kept, kept[:1].expand(3, -1, -1))
    rows, columns = kept[0].any(1), kept[0].any(0)
    assert rows.sum() == columns.sum() == 7


def test_tubes_are_equal_in_every_slot() -> None:
    flags = dropped_plane(draw(Tube(0.75), CLIP), CLIP)
    assert torch.equal(flags, flags[:, :1].expand_as(flags))


def test_frames_are_dropped_whole_and_seven_of_eight() -> None:
    flags = dropped_plane(draw(Frame(), CLIP), CLIP).flatten(2)
    assert torch.equal(flags.all(2), flags.any(2))
    assert bool((flags.all(2).sum(1) == 7).all())


def test_random_masks_of_clips_differ_from_slot_to_slot() -> None:
    flags = dropped_plane(draw(Random(), CLIP, 20), CLIP)
    assert not torch.equal(flags, flags[:, :1].expand_as(flags))


def test_what_a_strategy_cannot_mask_is_refused_in_one_sentence() -> None:
    with pytest.raises(ValueError, match=r"one of every four patches.*0\.75, not 0\.5"):
        GridWise(0.5)
    with pytest.raises(ValueError, match="even number of patches each way, not 3 x 4"):
        GridWise().visible(Grid(1, 3, 4, (1, 8, 8)))
    with pytest.raises(ValueError, match="this grid has one"):
        Frame().visible(PICTURE)
    for strategy in (GridWise(), BlockWise()):
        with pytest.raises(ValueError, match="choose mask=random, tube or frame"):
            strategy.visible(CLIP)
    with pytest.raises(ValueError, match="min_aspect=0"):
        BlockWise(min_aspect=0)
    with pytest.raises(ValueError, match="unknown rounding"):
        Tube(0.9, "up").visible(CLIP)
