"""The SQLite file behind a store of runs: whether it can be used, where its artifacts lie, who holds its lock."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from mae.errors import UserError

T = TypeVar("T")


class TrackingError(UserError, RuntimeError):
    """The tracking store cannot be used; the message says why and what to do."""

    status = 2


def database_of(uri: str) -> Path | None:
    """The file of a store in SQLite, None for a server."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def check_database(uri: str) -> None:
    """Refuse a database file that is not whole or cannot be written, before MLflow touches it."""
    path = database_of(uri)
    if path is None or not path.exists():
        return
    try:
        with sqlite3.connect(path, timeout=60) as connection:
            verdict = connection.execute("PRAGMA quick_check").fetchone()[0]
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")}
            connection.execute("BEGIN IMMEDIATE")
            connection.rollback()
    except sqlite3.Error as error:
        verdict, tables = str(error), set()
    if verdict == "ok" and (not tables or {"runs", "alembic_version"} <= tables):
        return
    reason = verdict if verdict != "ok" else "it was only half created"
    raise TrackingError(
        f"the tracking database {path} cannot be used ({reason}); make it writable, or move it away (a new one shows "
        f"all records of this out) and run the same command again, or choose another out=PATH"
    )


def move_artifacts(database: Path, before: str, now: str) -> None:
    """Let an experiment and its runs find their artifacts where the folder of the database has been moved to."""
    with sqlite3.connect(database, timeout=60) as connection:
        connection.execute("UPDATE experiments SET artifact_location = ? WHERE artifact_location = ?", (now, before))
        connection.execute(
            "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) WHERE substr(artifact_uri, 1, ?) = ?",
            (now, len(before) + 1, len(before) + 1, f"{before}/"),
        )


def patient(call: Callable[[], T]) -> T:
    """Try again while another process holds SQLite's lock."""
    for attempt in range(60):
        try:
            return call()
        except Exception as error:  # MLflow wraps the driver's error in one of several classes
            if "database is locked" not in str(error) or attempt == 59:
                raise
            time.sleep(0.25)
    raise AssertionError("unreachable")
