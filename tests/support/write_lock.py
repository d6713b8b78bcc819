"""The lock that a process which writes holds, held by another one."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

import asyncpg
from sqlalchemy import make_url


@asynccontextmanager
async def write_lock(url: str) -> AsyncIterator[None]:
    """Let nobody write to a database meanwhile."""
    address = make_url(url)
    if address.drivername.startswith("sqlite"):
        assert address.database
        with closing(sqlite3.connect(address.database, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            yield
            other.execute("ROLLBACK")
        return
    connection = await asyncpg.connect(url.replace("+asyncpg", "", 1))
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE ticket IN EXCLUSIVE MODE")
            yield
    finally:
        await connection.close()
