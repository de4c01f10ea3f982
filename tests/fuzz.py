"""Spoiled inputs by the hundred, planned or looked at as a user's would be: ``python -m tests.fuzz [COUNT] [FIRST]``.

A case is a function of its number: pictures, films, lists, weights, tables and command lines that are cut, flipped,
swapped, emptied or made up. Right is a plan or a report of problems (exit status 0 or 1), or a refusal in one sentence
(2). Wrong are a traceback, more than a minute, more than one line, and damage that nothing names. Counts of outcomes
come last, wrong cases with the number that makes them again: ``python -m tests.fuzz 1 NUMBER``.
"""

from __future__ import annotations

import contextlib
import io
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from types import FrameType

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from experiments import run, verify
from experiments.ablation import load_ablation
from experiments.compose import compose, flatten
from experiments.plan import plan
from tests.data.clips.clip_writer import numbered, write

SECONDS = 60
PICTURES = ["ablation=decoder_depth", "row=1", "scale=smoke", "data=image_folder", "data.decoded=[24,24]",
            "data.input_size=[24,24]", "data.classes=2", "data.samples={pretrain: 16, train: 16, test: 4}"]  # fmt: skip
CLIPS = ["ablation=video_masking", "row=tube 90", "scale=smoke", "evaluate_data=same", "data.classes=2",
         "data.source.train=16", "data.source.test=2"]  # fmt: skip
LISTED = ["data=k400", "data.source.train_list=train.csv", "data.source.test_list=test.csv", "data.input_size=[32,32]",
          "data.source.short_side=32"]  # fmt: skip
SMOKE = ["ablation=decoder_depth", "row=1", "scale=smoke"]

#: Which command is to judge something spoiled, its words, and whether it must find something wrong.
Case = tuple[Callable[[list[str]], int], list[str], bool]


def spoiled(content: bytes, chance: Random) -> bytes:
    """``content`` cut, with flipped bytes, with a part doubled, missing or of another kind, or nothing at all."""
    place = chance.randrange(len(content) + 1)
    end = min(len(content), place + chance.choice((1, 16, 512)))
    ways = (
        lambda: content[:place],
        lambda: content[place:],
        lambda: b"",
        lambda: content[:place] + bytes(chance.randrange(256) for _ in range(end - place)) + content[end:],
        lambda: content[:place] + content[end:],
        lambda: content[:place] + content[place:end] * 3 + content[end:],
        lambda: bytes(len(content)),
        lambda: b"<!DOCTYPE html><html><body>404</body></html>",
        lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        lambda: content[::-1],
    )
    return chance.choice(ways)()


def spoil(folder: Path, chance: Random) -> bool:
    """Spoil one to four files under ``folder``, or their names or places; whether any content changed."""
    before = _contents(folder)
    for _ in range(chance.randint(1, 4)):
        path = chance.choice(sorted(item for item in folder.rglob("*") if item.is_file()))
        way = chance.randrange(6)
        if way < 3:
            path.write_bytes(spoiled(path.read_bytes(), chance))
        elif way == 3:
            path.unlink()
            if chance.random() < 0.5:
                path.mkdir()
        elif way == 4:
            path.rename(path.with_name(chance.choice(("写真 (2)", "a,b", "x'y", "#", "..x", "n" * 200)) + path.suffix))
        else:
            path.unlink()
            path.symlink_to(chance.choice((folder, Path("/nowhere"), path)))
    return _contents(folder) != before


def _contents(folder: Path) -> Counter[bytes]:
    return Counter(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def pictures(folder: Path, chance: Random) -> Case:
    _pictures(folder)
    damaged = spoil(folder, chance)
    return _judged(chance, [*PICTURES, f"data.source.root={folder}"], damaged)


def films(folder: Path, chance: Random) -> Case:
    _films(folder)
    spoil(folder, chance)
    return _judged(chance, [*CLIPS, "data=clip_folder", f"data.source.root={folder}"])


def lists(folder: Path, chance: Random) -> Case:
    if chance.random() < 0.5:
        _pictures(folder / "files")
        lines = ["path,label,split"] + [
            f"{path.relative_to(folder)},{path.parent.name},{path.parent.parent.name}"
            for path in sorted((folder / "files").rglob("*.png"))
        ]
        (folder / "list.csv").write_bytes(_spoiled_lines(lines, chance))
        return _judged(chance, [*PICTURES, f"data.source.root={folder / 'list.csv'}"])
    _films(folder)
    for side in ("train", "test"):
        paths = sorted((folder / side).rglob("*.mp4"))
        lines = [f"{path.relative_to(folder)} {index % 2}" for index, path in enumerate(paths)]
        (folder / f"{side}.csv").write_bytes(_spoiled_lines(lines, chance))
    return _judged(chance, [*CLIPS, *LISTED, f"data.source.root={folder}"])


def weights(folder: Path, chance: Random) -> Case:
    state, finite = dict(_model().state_dict()), True
    names = sorted(state)
    for _ in range(chance.randint(0, 3)):
        name = chance.choice(names)
        found = state.pop(name, torch.zeros(1))
        way = chance.randrange(5)
        if way == 1:
            state[f"module.{name}"] = found
        elif way == 2:
            state[name] = found.flatten()[: chance.randrange(1, 9)].clone()
        elif way == 3:
            state[name] = found.to(chance.choice((torch.float16, torch.int64, torch.float64)))
        elif way == 4:
            state[name] = found * float("nan")
            finite = "encoder" not in name  # of a decoder nothing is read
    path = folder / chance.choice(("w.safetensors", "w.pth", "w.ckpt", "w.bin", "w"))
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        holder: object = chance.choice(
            (state, {"model": state}, {"state_dict": state}, [state], list(state.values()), 3)
        )
        torch.save(holder, path)
    if chance.random() < 0.5:
        path.write_bytes(spoiled(path.read_bytes(), chance))
    if chance.random() < 0.1:
        path.unlink()
    return _plan, [*SMOKE, "origin=file", f"origin.path={path}"], not finite


def tables(folder: Path, chance: Random) -> Case:
    text = load_ablation("decoder_depth").file.read_text(encoding="utf-8")
    lines = text.splitlines()
    for _ in range(chance.randint(1, 3)):
        row = chance.randrange(len(lines))
        other = chance.choice(lines)
        ways = (
            lambda line, other: "",
            lambda line, other: other,
            lambda line, other: line[: chance.randrange(len(line) + 1)],
            lambda line, other: line.replace(":", "", 1),
            lambda line, other: "  " + line,
            lambda line, other: line.lstrip(),
            lambda line, other: line.partition(":")[0] + ": " + chance.choice(VALUES),
            lambda line, other: chance.choice(VALUES) + ": " + line.partition(":")[2],
        )
        lines[row] = chance.choice(ways)(lines[row], other)
    content = "\n".join(lines).encode()
    path = folder / "mine.yaml"
    path.write_bytes(spoiled(content, chance) if chance.random() < 0.2 else content)
    return _plan, [f"ablation={path}", "scale=smoke"], False


VALUES = (
    "", "null", "~", "0", "-1", "1e999", "nan", "true", "[]", "{}", "[1, 2", "{a: b}", "'", '"', "写真", "&a",
    "*a", "!!python/object:os.system", "!!binary x", "${data}", "${oc.env:HOME}", "${mask", "=", "2022-01-01",
    "0x10", "1_000", "\t", "1:2:3", "?", "[[1]]", "x" * 300, "9" * 40, "-0.5", "0.5", "2", "linear/top1",
)  # fmt: skip


KEYS = [
    "mask.ratio",
    "mask",
    "pretrain.epochs",
    "pretrain.batch_size",
    "pretrain.base_lr",
    "pretrain.betas",
    "init",
    "model.encoder.depth",
    "model.encoder.width",
    "model.encoder.heads",
    "model.patch",
    "model",
    "data.samples",
    "data.samples.train",
    "data.classes",
    "data.input_size",
    "data.mean",
    "data.source.root",
    "data.source.size",
    "data.source.seed",
    "data",
    "evaluate",
    "evaluate.linear",
    "evaluate/linear",
    "evaluate.linear.protocol.k",
    "evaluate.finetune.protocol.recipe.layer_decay",
    "evaluate.finetune.protocol.tuned_blocks",
    "origin.path",
    "origin",
    "target",
    "objective.loss",
    "method",
    "seed",
    "seeds",
    "scale",
    "row",
    "precision",
    "device",
    "workers",
    "budget",
    "reuse",
    "out",
    "augment.scale",
    "augment",
    "tokenizer.path",
    "evaluate_data",
    "+x",
    "~mask",
    "data.source._target_",
    "method._target_",
    "mask._target_",
    "report_dir",
    "tested",
    "pretrain.warmup_epochs",
    "evaluate.linear.protocol.recipe.batch_size",
    "model.positions",
]


def command_lines(folder: Path, chance: Random) -> Case:
    words = []
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        word = f"{chance.choice(KEYS)}{chance.choice(('=',) * 12 + ('==', ' = ', ''))}{chance.choice(VALUES)}"
        if not word.startswith(("out=", "report_dir=")) or word.endswith("="):
            words.append(word)
    if chance.random() < 0.2:
        words.append("".join(chance.choice("abc=.,[]{}'\"$~/\\ 写#") for _ in range(chance.randint(1, 12))))
    return _plan, [*SMOKE, *words], False


def numbers(folder: Path, chance: Random) -> Case:
    """A key of the spec that holds numbers, with others."""
    found = flatten(compose("smoke", []))
    keys = [key for key, value in found.items() if isinstance(value, int | float | list)]
    key = chance.choice([key for key in keys if not key.startswith(("evaluate_data.", "method."))])
    broken = "nan" in (text := chance.choice(NUMBERS)) or "inf" in text or "999" in text
    return _plan, [*SMOKE, f"{key}={text}"], broken


NUMBERS = [
    "0",
    "-1",
    "0.5",
    "2",
    "1e999",
    "1_000",
    "nan",
    "-0.0",
    "1e-300",
    "[0]",
    "[-1,2]",
    "[nan,nan]",
    "[]",
    "[1,2,3]",
    "[0.5,0.5,0.5]",
    "[1e999,1]",
    "[4,4]",
    "3.7",
    "inf",
]

KINDS = (pictures, films, lists, weights, tables, command_lines, numbers)


def _pictures(folder: Path) -> None:
    chance = np.random.default_rng(0)
    for index in range(20):
        place = folder / ("train" if index < 16 else "test") / ("cat" if index % 2 else "dog") / f"{index}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(chance.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(place)


def _films(folder: Path, kept: dict[str, bytes] = {}) -> None:  # noqa: B006, one film is made for all cases
    if not kept:
        kept["clip"] = write(folder / "clip.mp4", numbered(20)).read_bytes()
        (folder / "clip.mp4").unlink()
    for index in range(18):
        place = folder / ("train" if index < 16 else "test") / ("run" if index % 2 else "swim") / f"{index}.mp4"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(kept["clip"])


def _spoiled_lines(lines: list[str], chance: Random) -> bytes:
    lines = list(lines)
    for _ in range(chance.randint(1, 3)):
        row = chance.randrange(len(lines))
        line, odd = lines[row], chance.choice(("", ",", ";", "\t", '"', "\0", "x", "-1", "99", "写真", "\ufeff", "\r"))
        lines[row] = chance.choice((odd, line + odd, odd + line, line.replace(",", odd), line[:5], f"{line}\n{line}"))
    text = "\n".join(lines)
    return text.encode(chance.choice(("utf-8", "utf-8", "utf-8", "utf-16", "utf-8-sig")), "replace")


def _model() -> torch.nn.Module:
    from experiments.assemble import method_of

    torch.manual_seed(0)
    return method_of(plan([load_ablation("decoder_depth")], "smoke", 1, rows=["1"])[0].spec)


def _plan(words: list[str]) -> int:
    return run.main([*words, "plan_only=true"])


def _judged(chance: Random, words: list[str], damaged: bool = False) -> Case:
    """Half of the files are looked at, which finds all damage; half are planned with, for which none is opened."""
    return (verify.main, [*words, "workers=0"], damaged) if chance.random() < 0.5 else (_plan, words, False)


class Hung(BaseException):
    """A case takes too long; no command answers for it, as it would for an error."""


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """``Hung`` after a minute."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Hung

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)


def outcome(number: int) -> tuple[str, str]:
    """What comes of a case, and what there is to say about it where it is wrong."""
    chance = Random(number)
    kind = KINDS[number % len(KINDS)]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "data"
        folder.mkdir()
        command, words, damaged = kind(folder, chance)
        if command is _plan:
            words = [f"out={place}/out", f"report_dir={place}/report", "device=cpu", *words]
        said, complaint = io.StringIO(), io.StringIO()
        try:
            with limited(), contextlib.redirect_stdout(said), contextlib.redirect_stderr(complaint):
                status = command(words)
        except Hung:
            return f"{kind.__name__}: HANGS", " ".join(words)
        except BaseException:
            return f"{kind.__name__}: TRACEBACK", f"{' '.join(words)}\n{traceback.format_exc()[-1500:]}"
        lines = [line for line in complaint.getvalue().splitlines() if line.startswith("error: ")]
        if status == 1 and command is _plan:
            return f"{kind.__name__}: FAILS", f"{' '.join(words)}\n{complaint.getvalue()[-600:]}"
        if status == 2 and (len(lines) != 1 or len(lines[0]) < 25):
            return f"{kind.__name__}: NO SENTENCE", f"{' '.join(words)}\n{complaint.getvalue()[-600:]}"
        if status == 0 and damaged:
            return f"{kind.__name__}: SILENT", " ".join(words)
        names = {0: "planned or clean", 1: "problems named", 2: "refused in a sentence"}
        return f"{kind.__name__}: {names.get(status, f'STATUS {status}')}", f"{' '.join(words)[-300:]} | {lines}"


def main(count: int, first: int) -> int:
    """Count outcomes of ``count`` cases from number ``first``; 1 if any is wrong."""
    torch.set_num_threads(1)
    found: Counter[str] = Counter()
    for number in range(first, first + count):
        what, words = outcome(number)
        found[what] += 1
        if what.rpartition(": ")[2].split()[0].isupper() or count == 1:
            print(f"case {number}: {what}: {words}", flush=True)
    for what, times in sorted(found.items()):
        print(f"{times:5}  {what}")
    return int(any(what.rpartition(": ")[2].split()[0].isupper() for what in found))


if __name__ == "__main__":
    sys.exit(main(*(int(word) for word in (*sys.argv[1:], *("500", "0")[len(sys.argv) - 1 :]))))
