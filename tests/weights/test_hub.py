"""Converted weights go to the hub with a token, and nowhere without one. Nothing is sent by these tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from mae.weights.__main__ import main
from tests.weights.test_convert import model_of, saved


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    source = saved(model_of(False, 16, 2, 2, 8, 16), tmp_path / "run")
    return ["convert", str(source), str(tmp_path / "out"), "format=timm"]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What would have been sent."""
    found: list[dict[str, Any]] = []

    class Api:
        def create_repo(self, name: str, **options: Any) -> str:
            found.append({"made": name, **options})
            return f"https://hub/{name}"

        def upload_folder(self, **options: Any) -> None:
            if options["repo_id"].startswith("full"):
                raise RuntimeError("507 no room\nsecond line")
            found.append(options)

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "token")
    return found


def test_a_folder_is_pushed_as_a_private_model(
    words: list[str], sent: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "push_to_hub=me/mae"]) == 0
    assert sent == [
        {"made": "me/mae", "private": True, "exist_ok": True},
        {"repo_id": "me/mae", "folder_path": Path(words[2])},
    ]
    assert "pushed: https://hub/me/mae" in capsys.readouterr().out


def test_what_the_hub_does_not_take_stays_here(
    words: list[str], sent: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "push_to_hub=full/mae"]) == 1
    assert "the hub did not take it: 507 no room; push it again" in capsys.readouterr().err
    assert (Path(words[2]) / "model.safetensors").is_file()


@pytest.mark.parametrize(("name", "said"), [("me/mae", "needs a token"), ("mae", "write OWNER/NAME")])
def test_without_a_token_or_a_name_nothing_is_converted(
    name: str, said: str, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    assert main([*words, f"push_to_hub={name}"]) == 2
    assert said in capsys.readouterr().err
    assert not Path(words[2]).exists()
