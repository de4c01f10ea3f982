"""The address of a study's database, as it is given, used and shown."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy


def storage_url(out: Path, given: str | None = None) -> str:
    """``given``, or the SQLite database of ``out`` as an absolute URL.

    PostgreSQL is reached by the driver that the extra ``postgres`` installs; SQLAlchemy before 2.1 would take another.
    """
    return (given or f"sqlite:///{out.resolve() / 'optuna.db'}").replace("postgresql://", "postgresql+psycopg://", 1)


def shown(url: str) -> str:
    """The address of a database without its password."""
    try:
        return str(sqlalchemy.engine.make_url(url).render_as_string(hide_password=True))
    except sqlalchemy.exc.ArgumentError:
        return "that is given"


def cause(error: BaseException) -> str:
    """The first line of what a database said."""
    return (str(error.__cause__ or error).strip().splitlines() or [type(error).__name__])[0]
