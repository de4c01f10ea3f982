"""Tables as frames, CSV, Markdown, LaTeX and text."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from experiments.claim_entry import ClaimEntry
from experiments.command import answer
from reports.render.html import page as html
from reports.render.markup import escape_latex, escape_markdown
from reports.render.page import index_markdown, parts_in
from reports.render.phrases import duration, number, remarks, tally
from reports.render.text import render_text
from reports.tables import TABLE_COLUMNS, all_scales, claims_table, read_table, table, write_tables

ROOT = Path(__file__).resolve().parents[2]
HALF = {("random 75", "finetune/top1"): [47.0, 49.0], ("block 75", "finetune/top1"): [43.0]}
ENDS = (".csv", "_claims.csv", "_deviations.csv", "_advice.csv", "_trainings.csv", ".json", ".html", ".md", ".tex")
CLAIMS = ("ft[random 75] > ft[block 75]", "lin[random 75] > lin[grid 75]")


def test_every_row_and_column_is_there_when_nothing_was_run(make_ablation: Any, make_frame: Any) -> None:
    found = table(make_ablation(), make_frame({}), "desk")
    assert tuple(found.columns) == TABLE_COLUMNS
    assert list(zip(found["row"], found["metric"], strict=True))[:3] == [
        ("random 75", "ft"),
        ("random 75", "lin"),
        ("block 75", "ft"),
    ]
    assert set(found["verdict"]) == {"not run"}
    assert set(found["n"]) == {0}
    assert found["mean"].isna().all()
    assert found["paper"].notna().sum() == 5


def test_half_a_table_shows_what_was_run_and_says_what_was_not(make_ablation: Any, make_frame: Any) -> None:
    found = table(make_ablation(), make_frame(HALF), "desk").set_index(["row", "metric"])
    assert found.loc[("random 75", "ft"), ["mean", "n", "verdict"]].to_list() == [48.0, 2, "trend only"]
    assert pd.isna(found.loc[("block 75", "ft"), "ci_low"])
    assert found.loc[("block 75", "ft"), "n"] == 1
    assert found.loc[("grid 75", "ft"), "verdict"] == "not run"


@pytest.mark.parametrize("scale", ["smoke", "desk", "gpu"])
def test_the_word_for_paper_scale_appears_nowhere_else(
    scale: str, tmp_path: Path, make_ablation: Any, make_frame: Any
) -> None:
    ablation = make_ablation(claims=CLAIMS)
    frame = make_frame({("random 75", "finetune/top1"): [84.9, 84.9]}, scale)
    paths = write_tables(ablation, frame, tmp_path)
    output = render_text(ablation, frame, scale) + "".join(path.read_text() for path in paths)
    assert "reproduced" not in output
    with_tolerance = make_ablation(columns={"ft": {"metric": "finetune/top1", "tolerance": 0.35}}, claims=CLAIMS[:1])
    assert "84.90 ± 0.00 (2) reproduced" in render_text(with_tolerance, frame.assign(scale="paper"), "paper")


def test_scales_are_stacked_and_read_back_with_their_labels_as_text(
    tmp_path: Path, make_ablation: Any, make_frame: Any
) -> None:
    ablation = make_ablation(rows={"none": {"ft": 84.0}, "8": {"ft": 84.9}}, claims=("ft[8] > ft[none]",))
    values = {("none", "finetune/top1"): [1.0, 2.0], ("8", "finetune/top1"): [3.0]}
    frame = pd.concat([make_frame(values, "paper"), make_frame(values)])
    paths = write_tables(ablation, frame, tmp_path)
    assert [p.name for p in paths] == [f"mask_sampling{end}" for end in ENDS]
    expected = all_scales(ablation, frame)
    for path, stacked in zip(paths[:2], expected, strict=True):
        pd.testing.assert_frame_equal(read_table(path), stacked, rtol=1e-5)
    assert expected[0]["scale"].unique().tolist() == ["desk", "paper"]
    assert read_table(paths[0])["row"].unique().tolist() == ["none", "8"]


def test_a_table_of_another_layout_is_refused_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "old.csv"
    path.write_text("row,value\n8,1\n")
    assert answer(lambda: len(read_table(path))) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: {path} was written by another version")
    assert said.endswith(f"delete {tmp_path} and run python reports/build.py\n")


def test_variants_have_their_own_table(tmp_path: Path, make_ablation: Any, make_frame: Any) -> None:
    frame = make_frame(HALF, variant="data=cifar10")
    (path, *_) = write_tables(make_ablation(), frame, tmp_path, "data=cifar10")
    assert path.name == "mask_sampling--data=cifar10.csv"
    assert read_table(path)["n"].sum() == 3
    assert table(make_ablation(), frame, "desk")["n"].sum() == 0


def test_claims_table_says_what_the_published_numbers_say(make_ablation: Any, make_frame: Any) -> None:
    found = claims_table(make_ablation(claims=CLAIMS), make_frame(HALF), "desk")
    assert found["verdict"].to_list() == ["undecided", "not run"]
    assert found["paper"].to_list() == ["yes", ""]
    assert found["difference"].iloc[0] == 4.0
    assert found["n"].to_list() == [1, 0]
    assert claims_table(make_ablation(), make_frame(HALF), "desk").empty


def test_text_has_one_line_per_row_then_claims_then_what_the_scale_means(make_ablation: Any, make_frame: Any) -> None:
    text = render_text(make_ablation(claims=CLAIMS), make_frame(HALF), "desk", elapsed=192.0)
    lines = text.splitlines()
    (row,) = [line for line in lines if line.startswith("random 75 *")]
    assert row.split("  ")[0] == "random 75 *"
    assert all(shown in row for shown in ("84.9", "48.00 ± 1.41 (2)", "not run"))
    assert sum(line.startswith(("random 75", "block 75", "grid 75")) for line in lines) == 3
    assert any(line.split() == ["undecided", *CLAIMS[0].split()] for line in lines)
    assert "difference +4.00, as claimed, no interval, n=1; the published numbers satisfy it" in text
    assert "claims (paper: 1 undecided, 1 not run); after the bar: corrected" in text
    assert "Sec. 4.1: “it is so”" in text
    assert "scale=desk: a trend on small data; published values are shown for orientation" in text
    assert lines[-1] == "Took 3 min 12 s."


def test_columns_of_the_text_line_up(make_ablation: Any, make_frame: Any) -> None:
    columns = {
        "ft": {"metric": "finetune/top1", "label": "a heading wider than the numbers below it"},
        "lin": {"metric": "linear/top1"},
    }
    lines = render_text(make_ablation(columns=columns), make_frame(HALF), "desk").splitlines()
    head = next(line for line in lines if line.startswith("row"))
    second = head.index("paper", head.index("measured"))
    rows = [line for line in lines if line.startswith(("random 75", "block 75", "grid 75"))]
    assert [line[second : second + 4] for line in rows] == ["73.5", "63.9", "none"]
    assert lines[lines.index(head) - 1].index("lin (%)") == second


def test_markdown_and_latex_escape_what_a_label_may_hold(tmp_path: Path, make_ablation: Any, make_frame: Any) -> None:
    label = "[M] 50% & a_b | <i>*x*</i> $1 #2 {y} ~^\\"
    ablation = make_ablation(rows={label: {"ft": 84.9}}, claims=(f"ft[{label}] > 1",), question="5 < 6 & 7?")
    *_, markdown, latex = (path.read_text() for path in write_tables(ablation, make_frame({}), tmp_path))
    assert escape_markdown(label) in markdown
    assert "<i>" not in markdown
    # A table line of Markdown: as many unescaped bars as the header has.
    bars = {line.replace("\\|", "").count("|") for line in markdown.splitlines() if line.startswith(("| row", "| **"))}
    assert bars == {6}
    assert escape_latex(label) == (
        r"{[}M{]} 50\% \& a\_b | \textless{}i\textgreater{}*x*\textless{}/i\textgreater{} "
        r"\$1 \#2 \{y\} \textasciitilde{}\textasciicircum{}\textbackslash{}"
    )
    assert rf"\textbf{{{escape_latex(label)}}} & 84.9 & not run & none" in latex
    assert latex.count(r"\toprule") == latex.count(r"\bottomrule") == 2  # the values, and the claims


def test_numbers_are_shown_as_precisely_as_they_are_known() -> None:
    assert [number(x, published=True) for x in (84.0, 84.9, 3.25)] == ["84.0", "84.9", "3.25"]
    shown = [number(x) for x in (84.916, 15234.4, 0.0123, 0.0, float("nan"))]
    assert shown == ["84.92", "15,234", "0.012", "0.00", "none"]
    assert [duration(x) for x in (4.25, 59.7, 192, 3720)] == ["4.2 s", "1 min 0 s", "3 min 12 s", "1 h 2 min"]


def test_printing_a_table_loads_no_plotting_library_and_no_model() -> None:
    heavy = ("matplotlib", "seaborn", "torch", "mae.model", "scipy")
    code = f"import sys, reports.render.text, reports.collect; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_items_that_could_not_be_read_are_named_beside_the_table(make_ablation: Any, make_frame: Any) -> None:
    ablation = make_ablation()
    frame = make_frame(HALF | {("random 75", "finetune/unreadable"): [2.0, 3.0], ("grid 75", "knn/unreadable"): [9.0]})
    found = table(ablation, frame, "desk").set_index(["row", "metric"])["unreadable"]
    assert found[found > 0].to_dict() == {("random 75", "ft"): 3}
    sentence = "Items that could not be read and were left out: 3 (random 75, ft)."
    assert sentence in render_text(ablation, frame, "desk").splitlines()
    assert "could not be read" not in render_text(ablation, make_frame(HALF), "desk")


@pytest.mark.parametrize(("scale", "variant", "said"), [
    ("smoke", "", True), ("desk", "", True), ("desk", "mask.ratio=0.5", True),
    ("desk", "data=clip_folder+evaluate_data=same", False), ("paper", "", False),
])  # fmt: skip
def test_tables_of_clips_say_what_stands_for_the_published_data(
    make_ablation: Any, make_frame: Any, scale: str, variant: str, said: bool
) -> None:
    ablation = make_ablation(inputs="clips")
    found = remarks(ablation, table(ablation, make_frame({}), scale, variant), scale, variant)
    assert any("motion labels stand for Something-Something V2" in remark for remark in found) == said


def test_page_and_documents_carry_the_remarks(make_ablation: Any, make_frame: Any, tmp_path: Path) -> None:
    ablation = make_ablation(inputs="clips")
    frame = make_frame(HALF | {("random 75", "finetune/unreadable"): [2.0, 3.0]})
    write_tables(ablation, frame, tmp_path / "tables")
    (part,) = parts_in([ablation], tmp_path)
    documents = [path.read_text() for path in (tmp_path / "tables").glob("*.[mt][de]*")]
    assert len(documents) == 2
    for document in [*documents, html([part]), index_markdown([part])]:
        assert "Built-in clips fill this table" in document
        assert "were left out: 3 (random 75, ft)" in document


def decided(make_ablation: Any, make_frame: Any) -> tuple[Any, Any]:
    """A table of two claims of the paper and one of ours: one stands, one falls to the correction."""
    ours = ClaimEntry("ft[c] > ft[a]", ours=True, why="to see both sides")
    ablation = make_ablation(
        rows={"a": {"ft": 84.0}, "b": {"ft": 84.9}, "c": {}}, claims=("ft[b] > ft[a]", "|ft[c] - ft[b]| < 1", ours)
    )
    values = {"a": [50.0, 50.4, 49.7], "b": [60.0, 60.1, 60.0], "c": [51.8, 52.1, 51.4]}
    frame = make_frame({(row, "finetune/top1"): seeds for row, seeds in values.items()})
    seconds = make_frame(
        {(r, f"{stage}/wall_seconds"): [t] * 3 for r in "abc" for stage, t in (("pretrain", 90.0), ("finetune", 30.0))}
    )
    return ablation, pd.concat([frame, seconds], ignore_index=True)


def test_claims_of_the_paper_and_ours_are_told_apart_and_counted_apart(make_ablation: Any, make_frame: Any) -> None:
    ablation, frame = decided(make_ablation, make_frame)
    found = claims_table(ablation, frame, "desk")
    assert found["whose"].to_list() == ["paper", "paper", "ours"]
    assert tally(found, "desk") == "paper: 1 holds, 1 contradicted; ours: 1 holds"
    text = render_text(ablation, frame, "desk")
    assert "ours: to see both sides" in text


def test_a_verdict_that_falls_to_the_correction_is_shown_behind_a_bar(make_ablation: Any, make_frame: Any) -> None:
    ablation, frame = decided(make_ablation, make_frame)
    noisy = frame.copy()
    noisy.loc[(noisy["row"] == "c") & (noisy["metric"] == "finetune/top1"), "value"] = [51.6, 52.9, 51.0]
    found = claims_table(ablation, noisy, "desk").set_index("claim").loc["ft[c] > ft[a]"]
    assert found["p"] < 0.05
    claims = claims_table(make_ablation(rows={key: {} for key in "abc"}, claims=["ft[c] > ft[a]"] * 3), noisy, "desk")
    assert set(claims["verdict"]) == {"holds"}
    assert set(claims["corrected"]) == {"undecided"}
    same = make_ablation(rows={key: {} for key in "abc"}, claims=["ft[c] > ft[a]"] * 3)
    assert "holds | undecided  ft[c] > ft[a]" in render_text(same, noisy, "desk")


def test_an_undecided_claim_says_what_was_visible_and_what_more_seeds_cost(make_ablation: Any, make_frame: Any) -> None:
    ablation, frame = decided(make_ablation, make_frame)
    frame.loc[(frame["row"] == "c") & (frame["metric"] == "finetune/top1"), "value"] = [51.0, 53.0, 49.9]
    line = claims_table(ablation, frame, "desk").set_index("claim").loc["ft[c] > ft[a]"]
    assert line["verdict"] == "undecided"
    assert line["visible"] > line["difference"]
    assert line["seeds"] > 3
    assert line["minutes"] == pytest.approx((line["seeds"] - 3) * 2 * 2.0)  # two rows of two minutes
    text = render_text(ablation, frame, "desk")
    assert f"about {line['seeds']:.0f} seeds to decide (" in text
    assert f"smallest visible difference {line['visible']:.2f}" in text


def test_every_rendering_shows_verdict_interval_and_source(make_ablation: Any, make_frame: Any, tmp_path: Path) -> None:
    ablation, frame = decided(make_ablation, make_frame)
    write_tables(ablation, frame, tmp_path / "tables")
    (part,) = parts_in([ablation], tmp_path)
    shown = [path.read_text() for path in sorted((tmp_path / "tables").glob("*.[mt][de]*"))]
    shown += [render_text(ablation, frame, "desk"), html([part]), index_markdown([part])]
    assert len(shown) == 5
    for text in shown:
        for words in ("contradicted", "interval", "visible", "ours: to see both sides", "it is so", "n=3"):
            assert words in text.replace("\\", ""), words
