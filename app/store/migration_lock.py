"""One process migrates at a time: the others wait for a row, which every engine locks."""

from typing import Final

from sqlalchemy import Column, Integer, MetaData, Table, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.schema import CreateTable
from sqlmodel import Session

LOCK: Final = Table(
    "migration_lock", MetaData(), Column("id", Integer, primary_key=True, autoincrement=False)
)


def make_lock(session: Session) -> None:
    """Make the row, unless there is one."""
    session.connection().execute(CreateTable(LOCK, if_not_exists=True))
    session.connection().execute(insert(LOCK).values(id=1).on_conflict_do_nothing())


def take_lock(session: Session) -> None:
    """Wait for the row and hold it until the end of the transaction."""
    session.connection().execute(select(LOCK).with_for_update())
