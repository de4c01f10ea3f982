"""Where a recipe departs from the published one, said from the specs themselves."""

from __future__ import annotations

from experiments.ablation import load_ablation
from experiments.browse import overrides_of
from reports.deviations import deviations


def test_what_differs_from_the_published_recipe_is_listed_and_what_does_not_is_not() -> None:
    found = deviations(load_ablation("mask_sampling"), "desk").set_index("what")[["here", "published"]]
    said = {what: tuple(line) for what, line in zip(found.index, found.to_numpy(), strict=True)}
    # MAE, Tables 8 to 10 and A.1: ViT-L/16 at 224 pixels, 800 epochs at a batch of 4096
    assert said["encoder (blocks × width)"][1] == "24 × 1,024"
    assert said["resolution"] == ("24 × 24", "224 × 224")
    assert said["epochs of pre-training"][1] == "800"
    assert said["batch of pre-training"][1] == "4,096"
    assert said["base rate of pre-training"][1] == "0.00015"
    assert said["data of fine-tuning"][1] == "ImageNet-1K"
    assert said["epochs of linear probing"][1] == "90"
    assert said["updates of pre-training"] == ("1,562, 0.6% of the published", "250,228")  # 800 x 1,281,167 / 4096
    assert "frames (count × stride)" not in said  # pictures here and there
    assert all(here != published for here, published in said.values())


def test_the_papers_scale_departs_in_nothing_and_overrides_are_read_from_a_variant() -> None:
    table = load_ablation("mask_sampling")
    assert deviations(table, "paper").empty
    assert overrides_of("evaluate-linear=desk+pretrain.epochs=3") == [
        "evaluate/linear=desk",
        "pretrain.epochs=3",
    ]
    (line,) = deviations(table, "paper", "pretrain.batch_size=2048").to_dict("records")[:1]
    assert (line["what"], line["here"], line["published"]) == ("batch of pre-training", "2,048", "4,096")


def test_a_variant_that_cannot_be_composed_has_no_list() -> None:
    assert deviations(load_ablation("mask_sampling"), "desk", "no_such_key=1").empty
