"""The service as its users meet it: through its doors, on a database of its own."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import anyio
import pytest

from app.settings import Settings
from app.store.database import open_database
from app.store.migrate import migrate
from tests.support.live import listening
from tests.support.service import Client, Service, start


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--interpreted", action="store_true", help="let graphql-core execute every operation"
    )


@pytest.fixture(scope="session")
def interpreted_first(pytestconfig: pytest.Config) -> int:
    """How often graphql-core executes an operation before it is compiled."""
    return 10**9 if pytestconfig.getoption("--interpreted") else 0


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with the tables and no rows, to be copied."""
    file = tmp_path_factory.mktemp("migrated") / "empty.db"

    async def run() -> None:
        database = open_database(f"sqlite+aiosqlite:///{file}")
        await migrate(database)
        await database.close()

    anyio.run(run)
    return file


def copy_of(migrated_file: Path, folder: Path) -> Path:
    """Return a database file of its own in a folder that later copies may share."""
    return Path(shutil.copy(migrated_file, folder / f"{uuid4()}.db"))


@pytest.fixture
def settings(migrated_file: Path, tmp_path: Path, interpreted_first: int) -> Settings:
    """Settings of a service with an empty database of its own."""
    file = shutil.copy(migrated_file, tmp_path / "ticket-activity.db")
    return Settings(database_url=f"sqlite+aiosqlite:///{file}", interpreted_first=interpreted_first)


@pytest.fixture(scope="module")
def blank(
    migrated_file: Path, tmp_path_factory: pytest.TempPathFactory, interpreted_first: int
) -> Settings:
    """Settings of a database that the examples of a property-based test share."""
    file = shutil.copy(migrated_file, tmp_path_factory.mktemp("shared") / "ticket-activity.db")
    return Settings(database_url=f"sqlite+aiosqlite:///{file}", interpreted_first=interpreted_first)


@pytest.fixture
async def service(settings: Settings) -> AsyncIterator[Service]:
    async with start(settings) as running:
        yield running


@pytest.fixture
async def origin(service: Service) -> AsyncIterator[str]:
    """The address of the service, listening on a socket."""
    async with listening(service) as address:
        yield address


@pytest.fixture
async def author(service: Service) -> Client:
    """A client whose token may read and write."""
    return await service.client()
