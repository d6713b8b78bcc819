"""The settings of PostgreSQL, apart from its driver, which is an optional extra."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PostgresqlOptions:
    """`is_pooled`: a pooler in between gives each transaction another connection.

    Then no statement stays prepared and no connection listens.
    """

    connect_seconds: float = 5
    lock_seconds: float = 5
    statement_seconds: float = 30
    answer_seconds: float = 5
    poll_seconds: float = 1
    listens: bool = True
    is_pooled: bool = False
