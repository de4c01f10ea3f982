"""Folders, lists and official split files of clips; each mistake is named with its file and line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mae.data.clips.lists import clips_in_json, clips_in_list, hmdb51, ucf101
from mae.errors import DataError


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def text(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


# Lists of paths and labels


@pytest.fixture
def root(tmp_path: Path) -> Path:
    touch(*(tmp_path / name for name in ("a.mp4", "b b.mp4", "c,c.mp4", "d/d.webm")))
    return tmp_path


@pytest.mark.parametrize(
    "lines",
    [
        ("a.mp4,1", '"c,c.mp4",0', "d/d.webm,2"),
        ("path,label", "a.mp4,1", '"c,c.mp4",0', "d/d.webm,2"),
        ("a.mp4\t1", "c,c.mp4\t0", "d/d.webm\t2"),
        ("a.mp4;1", "c,c.mp4;0", "", "d/d.webm;2"),
        ("a.mp4 1", "c,c.mp4 0", "d/d.webm 2"),
    ],
    ids=["comma", "header", "tab", "semicolon", "space"],
)
def test_the_delimiter_is_found(lines: tuple[str, ...], root: Path) -> None:
    listing = clips_in_list(text(root / "list.csv", *lines))
    assert listing.names == ("a.mp4", "c,c.mp4", "d/d.webm")
    assert listing.labels == (1, 0, 2)
    assert listing.classes == ("0", "1", "2")


def test_paths_with_spaces_are_divided_at_the_last_one(root: Path) -> None:
    assert clips_in_list(text(root / "list.txt", "b b.mp4 3", "a.mp4 0")).names == ("b b.mp4", "a.mp4")


def test_labels_may_be_names_or_absent(root: Path) -> None:
    named = clips_in_list(text(root / "a.csv", "a.mp4,run", "b b.mp4,jump"))
    assert (named.classes, named.labels) == (("jump", "run"), (1, 0))
    bare = clips_in_list(text(root / "b.csv", "a.mp4", "b b.mp4"))
    assert (bare.classes, bare.labels) == ((), (-1, -1))


SAME = (("a.mp4", "c,c.mp4", "d/d.webm"), (1, 0, 2))


@pytest.mark.parametrize(
    "lines",
    [
        ("video,label", "a.mp4,1", "c,c.mp4,0", "d/d.webm,2"),
        ("clip;class", "a.mp4;1", "c,c.mp4;0", "d/d.webm;2"),
        ("video label", "a.mp4 1", "c,c.mp4 0", "d/d.webm 2"),
        ("label,path", "1,a.mp4", '0,"c,c.mp4"', "2,d/d.webm"),
        ("path frames label", "a.mp4 90 1", "c,c.mp4 80 0", "d/d.webm 70 2"),
        ("a.mp4 0 1", "c,c.mp4 0 0", "d/d.webm 0 2"),
        ("a.mp4,90,1", "c,c.mp4,80,0", "d/d.webm,70,2"),
    ],
    ids=lambda lines: lines[0],
)
def test_headers_and_numbers_of_frames_are_passed_over(lines: tuple[str, ...], root: Path) -> None:
    listing = clips_in_list(text(root / "list.csv", *lines))
    assert (listing.names, listing.labels) == SAME


@pytest.mark.parametrize("delimiter", [" ", ",", ";", "\t"])
def test_commas_and_spaces_inside_paths_are_theirs(delimiter: str, tmp_path: Path) -> None:
    names = ("down hill, (fast)/train 0.mp4", "down hill, (fast)/a;b, 1.mp4", "up/2, 3.mp4")
    touch(*(tmp_path / name for name in names))
    listing = clips_in_list(text(tmp_path / "l.csv", *(f"{n}{delimiter}{i}" for i, n in enumerate(names))))
    assert (listing.names, listing.labels) == (names, (0, 1, 2))


def test_the_official_list_for_pretraining_has_no_labels(root: Path) -> None:
    listing = clips_in_list(text(root / "list.csv", "a.mp4 0 -1", "b b.mp4 0 -1", "c,c.mp4 0 -1"))
    assert (listing.names, listing.labels) == (("a.mp4", "b b.mp4", "c,c.mp4"), (-1, -1, -1))


def test_folders_of_frames_stand_with_their_number_and_label(tmp_path: Path) -> None:
    touch(*(tmp_path / "frames" / str(n) / "1.jpg" for n in (1, 2)), tmp_path / "frames" / "3 12" / "1.jpg")
    listing = clips_in_list(text(tmp_path / "list.csv", "frames/1 120 5", "frames/2 80 0", "frames/3 12 4"))
    assert (listing.names, listing.labels) == (("frames/1", "frames/2", "frames/3 12"), (5, 0, 4))


def test_up_to_a_twentieth_of_the_clips_may_be_missing(tmp_path: Path) -> None:
    touch(*(tmp_path / f"{number}.mp4" for number in range(38)))
    lines = [f"{number}.mp4 0" for number in range(40)]
    assert len(clips_in_list(text(tmp_path / "list.csv", *lines))) == 40
    with pytest.raises(DataError, match=r"line 39: .*38\.mp4 does not exist, nor do 2 others of 41; check where paths"):
        clips_in_list(text(tmp_path / "list.csv", *lines, "40.mp4 0"))
    for several, also in ((1, ""), (2, ", nor does 1 other of 2"), (3, ", nor do 2 others of 3")):
        alone = text(tmp_path / "short.csv", *(f"x{number}.mp4 0" for number in range(several)))
        with pytest.raises(DataError, match=rf"line 1: .*x0\.mp4 does not exist{also}; check where paths start"):
            clips_in_list(alone)


def test_a_header_without_a_path_is_refused(root: Path) -> None:
    with pytest.raises(DataError, match=r"line 1: the header 'class,label' names no path"):
        clips_in_list(text(root / "list.csv", "class,label", "a.mp4,1"))


def test_paths_start_from_the_root_that_is_given(root: Path, tmp_path: Path) -> None:
    listing = clips_in_list(text(tmp_path / "elsewhere" / "list.csv", "a.mp4,0"), root=root)
    assert listing.path(0).exists()


MISTAKES = {
    "another delimiter further down": (("a.mp4,1", "d/d.webm;2"), {}, "line 2: .*a comma"),
    "a wrong delimiter that was asked for": (("a.mp4,1",), {"delimiter": ";"}, "line 1: .*a semicolon"),
    "a field too many": (("a.mp4,1", "d/d.webm,often,2"), {}, "line 2: .*a comma"),
    "an unknown delimiter": (("a.mp4|1",), {}, "line 1: .*neither a clip nor"),
    "a label past the last": (
        ("a.mp4,0", "d/d.webm,5"),
        {"classes": 5},
        r"line 2: the label '5' is none of the 5 \(0 to 4\)",
    ),
    "a negative label": (("a.mp4,0", "d/d.webm,-1"), {"classes": 5}, "line 2: the label '-1'"),
    "an unknown name": (("a.mp4,run", "d/d.webm,swim"), {"classes": ["run"]}, "line 2: the label 'swim'"),
    "a clip that is not there": (("a.mp4,0", "", "z.mp4,0"), {}, "line 3: .*z.mp4 does not exist"),
    "a label left out": (("a.mp4,0", "d/d.webm,"), {}, "line 2: there is no label"),
    "nothing": ((), {}, "line 1: the list is empty"),
    "a header alone": (("path,label",), {}, "line 2: the list is empty"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_list_is_named_with_file_and_line(mistake: str, root: Path) -> None:
    lines, options, message = MISTAKES[mistake]
    with pytest.raises(DataError, match=rf"list\.csv, {message}"):
        clips_in_list(text(root / "list.csv", *lines), **options)


def test_a_list_that_is_missing_or_no_text_is_refused(root: Path) -> None:
    with pytest.raises(DataError, match="no such list"):
        clips_in_list(root / "none.csv")
    (root / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="UTF-8"):
        clips_in_list(root / "binary.csv")


# Something-Something


@pytest.fixture
def something(tmp_path: Path) -> dict[str, Path]:
    touch(*(tmp_path / "videos" / f"{number}.webm" for number in (1, 2, 3)))
    labels = tmp_path / "labels.json"
    labels.write_text(json.dumps({"Pushing something": "1", "Holding something next to something": "0"}))
    return {"labels": labels, "root": tmp_path / "videos"}


def entries(path: Path, *items: dict[str, object]) -> Path:
    path.write_text(json.dumps(items))
    return path


def test_something_something_is_read_by_template(something: dict[str, Path], tmp_path: Path) -> None:
    file = entries(
        tmp_path / "train.json",
        {"id": "2", "label": "holding a cup next to a jar", "template": "Holding [something] next to [something]"},
        {"id": "1", "label": "Pushing something"},
    )
    listing = clips_in_json(file, **something)
    assert (listing.names, listing.labels) == (("2.webm", "1.webm"), (0, 1))
    assert listing.classes == ("Holding something next to something", "Pushing something")
    assert clips_in_json(entries(tmp_path / "test.json", {"id": "3"}), **something).labels == (-1,)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([{"id": "1", "template": "Eating [something]"}], "entry 1: the label 'Eating something' is not among the 2"),
        ([{"id": "1"}, {"id": "9"}], "entry 2: .*/9 does not exist"),
        ([{"name": "1"}], "entry 1: it has no id"),
        ([], "line 1: the list is empty"),
    ],
)
def test_a_mistake_in_json_is_named_with_its_entry(
    items: list[dict[str, object]], message: str, something: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=rf"list\.json, {message}"):
        clips_in_json(entries(tmp_path / "list.json", *items), **something)


def test_broken_json_and_labels_with_gaps_are_refused(something: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"broken\.json is no JSON .*line \d"):
        clips_in_json(text(tmp_path / "broken.json", "[{", ""), **something)
    something["labels"].write_text(json.dumps({"Pushing something": "2"}))
    with pytest.raises(DataError, match=r"labels\.json: it must number"):
        clips_in_json(entries(tmp_path / "list.json", {"id": "1"}), **something)


# UCF101 and HMDB51


def test_ucf101_is_read_from_its_official_files(tmp_path: Path) -> None:
    lists, root = tmp_path / "lists", tmp_path / "UCF-101"
    touch(root / "Archery" / "v_a.avi", root / "Biking" / "v_b.avi", root / "Biking" / "v_c.avi")
    text(lists / "classInd.txt", "1 Archery\r", "2 Biking\r")
    text(lists / "trainlist01.txt", "Biking/v_b.avi 2\r", "Archery/v_a.avi 1\r")
    text(lists / "testlist01.txt", "Biking/v_c.avi\r")
    train, test = (ucf101(lists, split, root=root) for split in ("train", "test"))
    assert (train.names, train.labels) == (("Biking/v_b.avi", "Archery/v_a.avi"), (1, 0))
    assert (test.names, test.labels) == (("Biking/v_c.avi",), (1,))
    assert train.classes == test.classes == ("Archery", "Biking")
    text(lists / "trainlist01.txt", "Archery/v_a.avi 1", "Biking/v_b.avi 1")
    with pytest.raises(DataError, match=r"trainlist01\.txt, line 2: .*does not agree"):
        ucf101(lists, "train", root=root)
    with pytest.raises(DataError, match=r"trainlist02\.txt: there is no such list"):
        ucf101(lists, "train", root=root, fold=2)
    text(lists / "classInd.txt", "1 Archery", "3 Biking")
    with pytest.raises(DataError, match=r"classInd\.txt, line 2"):
        ucf101(lists, "train", root=root)


def test_hmdb51_is_read_from_its_official_files(tmp_path: Path) -> None:
    lists, root = tmp_path / "lists", tmp_path / "hmdb"
    touch(*(root / kind / f"{name}.avi" for kind in ("brush_hair", "wave") for name in "abc"))
    text(lists / "wave_test_split1.txt", "a.avi 2 ", "b.avi 0 ", "c.avi 1 ")
    text(lists / "brush_hair_test_split1.txt", "a.avi 1 ", "b.avi 1 ", "c.avi 2 ")
    train, test = (hmdb51(lists, split, root=root) for split in ("train", "test"))
    assert (train.names, train.labels) == (("brush_hair/a.avi", "brush_hair/b.avi", "wave/c.avi"), (0, 0, 1))
    assert (test.names, test.labels) == (("brush_hair/c.avi", "wave/a.avi"), (0, 1))
    assert train.classes == ("brush_hair", "wave")
    text(lists / "wave_test_split1.txt", "a.avi 2", "b.avi 7")
    with pytest.raises(DataError, match=r"wave_test_split1\.txt, line 2: .*is not a clip and 0"):
        hmdb51(lists, "train", root=root)
    with pytest.raises(DataError, match=r"no file <class>_test_split3\.txt"):
        hmdb51(lists, "train", root=root, fold=3)
