"""The page, and the command that rebuilds everything."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from experiments.ablation import ablation_names
from reports import build as command
from reports.collect import save_evidence, tidy
from reports.render.html import page as html
from reports.render.page import index_markdown, parts_in
from reports.tables import write_tables

VALUES = {("random 75", "finetune/top1"): [47.0, 49.0], ("block 75", "finetune/top1"): [43.0, 43.5]}


class Tags(HTMLParser):
    """Collects the tags of a page, checks that they nest, and keeps the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br", "link", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def one_ablation(monkeypatch: pytest.MonkeyPatch, make_ablation: Any) -> Any:
    """Let the report know one ablation only, with labels that HTML must escape."""
    ablation = make_ablation(
        title="Masks <script>alert(1)</script> & more",
        claims=("ft[random 75] > ft[block 75]", "lin[random 75] > lin[grid 75]"),
        notes=("a \"note\" with 'quotes' & <b>",),
    )
    monkeypatch.setattr(command, "ablation_names", lambda: [ablation.name])
    monkeypatch.setattr(command, "load_ablation", lambda name: ablation)
    return ablation


@pytest.fixture
def no_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Point the committed evidence at an absent folder and return it; forget a tracking server."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(command, "EVIDENCE", tmp_path / "results")
    return tmp_path / "results"


def read(page: str) -> Tags:
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    return tags


def test_page_is_escaped_self_contained_and_complete(tmp_path: Path, one_ablation: Any, make_frame: Any) -> None:
    written = command.build([one_ablation], make_frame(VALUES), tmp_path)
    assert all(path.exists() for path in written)
    assert len(written) == 13
    page = (tmp_path / "index.html").read_text()
    tags = read(page)
    assert [attrs for tag, attrs in tags.seen if tag == "script"] == [{}]  # the page's own
    assert "Masks <script>alert(1)</script> & more" in tags.text
    assert "a \"note\" with 'quotes' & <b>" in tags.text
    links = [value or "" for _, attrs in tags.seen for name, value in attrs.items() if name in ("src", "href")]
    assert links
    assert all(link.startswith(("#", "data:image/svg+xml;base64,", "data:,")) for link in links)
    assert not re.search(r"url\(|@import|https?://", page.split("<body>")[0])
    ids = {attrs["id"] for _, attrs in tags.seen if "id" in attrs}
    assert {link.removeprefix("#") for link in links if link.startswith("#")} <= ids
    for shown in (
        "Which patches should be dropped?",
        "Table 1f of arXiv 2111.06377v2",
        "48.00 ± 1.41 (2)",
        "2 of 6",
        "paper: 1 undecided, 1 not run",
        "python experiments/run.py ablation=mask_sampling scale=desk seeds=2",
        "python experiments/run.py ablation=mask_sampling scale=desk 'row=random 75' seeds=2",
    ):
        assert shown in tags.text, shown
    assert "reproduced" not in page + (tmp_path / "index.md").read_text()
    assert 'name="viewport"' in page
    assert "prefers-color-scheme: dark" in page


def test_building_one_ablation_keeps_the_others_on_the_page(
    tmp_path: Path, make_ablation: Any, make_frame: Any
) -> None:
    first, second = make_ablation("first", title="One"), make_ablation("second", title="Two")
    write_tables(first, make_frame({}), tmp_path / "tables")
    assert [part.title() for part in parts_in([first, second], tmp_path)] == ["One"]
    write_tables(second, make_frame({}), tmp_path / "tables")
    page = html(parts_in([first, second], tmp_path))
    assert page.index(">One<") < page.index(">Two<")


def test_without_redraw_a_figure_is_drawn_anew_only_when_its_table_changes(
    tmp_path: Path, one_ablation: Any, make_frame: Any
) -> None:
    figure = tmp_path / "figures" / "mask_sampling.png"

    def drawn(value: float) -> bool:
        figure.parent.mkdir(exist_ok=True)
        if figure.exists():
            figure.write_bytes(b"old")
        command.build([one_ablation], make_frame({("random 75", "finetune/top1"): [value]}), tmp_path, redraw=False)
        return figure.read_bytes() != b"old"

    assert drawn(50.0)
    assert not drawn(50.0)
    assert drawn(51.0)
    figure.unlink()
    assert drawn(51.0)


def test_variant_has_its_own_section_and_command(tmp_path: Path, make_ablation: Any, make_frame: Any) -> None:
    ablation, variant = make_ablation(), "data=cifar10+evaluate-linear=long"
    for name in ("", variant):
        write_tables(ablation, make_frame(VALUES, variant=variant), tmp_path / "tables", name)
    parts = parts_in([ablation], tmp_path)
    assert [part.variant for part in parts] == ["", variant]
    assert parts[1].command("gpu").endswith("scale=gpu data=cifar10 evaluate/linear=long")
    assert "(data=cifar10+evaluate-linear=long)" in index_markdown(parts)


def test_no_runs_and_no_database_give_a_full_report_and_create_no_database(
    tmp_path: Path, no_runs: Path, one_ablation: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "nowhere"
    assert command.main([f"out={out}", f"report_dir={tmp_path / 'report'}"]) == 0
    assert not out.exists()
    assert "index.html" in capsys.readouterr().out
    assert "not run" in (tmp_path / "report" / "index.md").read_text()
    assert (tmp_path / "report" / "figures" / "mask_sampling.png").read_bytes().startswith(b"\x89PNG")


def test_committed_results_alone_are_enough(tmp_path: Path, no_runs: Path, one_ablation: Any, make_frame: Any) -> None:
    save_evidence(make_frame(VALUES), no_runs)
    assert command.main([f"out={tmp_path / 'nowhere'}", f"report_dir={tmp_path}"]) == 0
    assert "48,1.41421,2," in (tmp_path / "tables" / "mask_sampling.csv").read_text()


def test_local_runs_supersede_and_are_saved_only_when_asked(
    tmp_path: Path, no_runs: Path, one_ablation: Any, make_frame: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_evidence(make_frame(VALUES), no_runs)
    local = make_frame({("random 75", "finetune/top1"): [57.0]})
    monkeypatch.setattr(command, "measurements", lambda uri, names: local)
    before = (no_runs / "mask_sampling.csv").read_text()
    assert command.main([f"report_dir={tmp_path}"]) == 0
    assert "random 75,ft,84.9,53," in (tmp_path / "tables" / "mask_sampling.csv").read_text()
    assert (no_runs / "mask_sampling.csv").read_text() == before
    assert command.main([f"report_dir={tmp_path}", "save_results=true"]) == 0
    assert ",57,f00d-random 75-finetune/top1-0,run0" in (no_runs / "mask_sampling.csv").read_text()


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("reportdir=x", "unknown key 'reportdir': did you mean report_dir?"),
        ("ablation=mask_smapling", "unknown ablation 'mask_smapling': did you mean mask_sampling or"),
        ("out", "cannot read 'out': write KEY=VALUE"),
        ("save_results=maybe", "save_results=maybe: give true or false"),
    ],
)
def test_a_wrong_argument_is_one_sentence_and_exit_code_two(
    argument: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([argument]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_damaged_evidence_is_one_sentence_and_exit_code_one(
    tmp_path: Path, no_runs: Path, one_ablation: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    no_runs.mkdir()
    (no_runs / "mask_sampling.csv").write_text("no header")
    assert command.main([f"out={tmp_path / 'nowhere'}", f"report_dir={tmp_path}"]) == 1
    assert "mask_sampling.csv does not begin with the header" in capsys.readouterr().err


def test_script_runs_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    script = Path(command.__file__)
    arguments = [f"out={tmp_path / 'nowhere'}", f"report_dir={tmp_path}", f"ablation={ablation_names()[0]}"]
    run = [sys.executable, str(script), *arguments]
    done = subprocess.run(run, cwd=script.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "index.html").exists()
    assert not (tmp_path / "nowhere").exists()


def test_an_unusable_tracking_database_is_one_sentence_and_exit_code_two(
    tmp_path: Path, no_runs: Path, one_ablation: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mlflow.db").write_text("this is no database, but long enough to look at" * 9)
    assert command.main([f"out={tmp_path}", f"report_dir={tmp_path}"]) == 2
    assert "mlflow.db cannot be used" in capsys.readouterr().err


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {key} " in text for key in ("out", "report_dir", "ablation", "save_results"))


def test_an_ablation_that_was_never_measured_has_no_variant(tmp_path: Path, make_ablation: Any) -> None:
    write_tables(make_ablation(), tidy(), tmp_path / "tables")
    (part,) = parts_in([make_ablation()], tmp_path)
    assert part.scales == ["desk"]
    assert part.svg is None


def test_the_same_measurements_give_the_same_bytes_whatever_labels_hold(
    tmp_path: Path, make_ablation: Any, make_frame: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "ablation_names", lambda: [])
    label = "遮罩 </script><b>75</b> & größer"
    table = make_ablation(rows={"a": {"ft": 84.0}, label: {"ft": 85.0}}, claims=(f"ft[{label}] > ft[a]",))
    frame = make_frame({("a", "finetune/top1"): [50.0, 51.0], (label, "finetune/top1"): [49.0]})
    once, twice = tmp_path / "once", tmp_path / "twice"
    written = [command.build([table], frame, place) for place in (once, twice)]
    for first, second in zip(*written, strict=True):
        assert first.relative_to(once) == second.relative_to(twice)
        assert first.read_bytes() == second.read_bytes(), first
    tags = read((once / "index.html").read_text())
    assert label in tags.text
    assert "b" not in {tag for tag, _ in tags.seen}
    assert [tag for tag, _ in tags.seen].count("script") == 1


def test_a_value_that_is_no_number_is_refused_with_its_row_and_seed(
    tmp_path: Path, no_runs: Path, one_ablation: Any, make_frame: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = make_frame({("random 75", "finetune/top1"): [47.0, float("nan")]})
    no_runs.mkdir()
    frame.to_csv(no_runs / "mask_sampling.csv", index=False, na_rep="nan")
    assert command.main([f"out={tmp_path / 'nowhere'}", f"report_dir={tmp_path}"]) == 1
    assert "holds nan for finetune/top1 of row 'random 75', seed 1" in capsys.readouterr().err
