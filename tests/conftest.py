"""The service as its users meet it: through its doors, on a database of its own, on each engine."""

import logging
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from app.log import events
from app.log_format import LogHandler
from app.settings import Settings
from tests.support.engines import Engine, engine_of
from tests.support.live import listening
from tests.support.postgresql import OWN_SERVER, running_postgresql
from tests.support.service import Client, Service, start

# How long an example takes says nothing on a machine that has other things to do.
hypothesis_settings.register_profile(
    "patient", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
hypothesis_settings.load_profile("patient")

ENGINES = ("sqlite", "postgresql")

_own_server = pytest.StashKey[str | None]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--interpreted", action="store_true", help="let graphql-core execute every operation"
    )
    parser.addoption("--engine", choices=ENGINES, help="run the tests on one engine only")
    parser.addoption("--postgresql", type=int, default=18, help="the version to start: 16 or 18")


def pytest_configure(config: pytest.Config) -> None:
    """Let the workers of pytest-xdist share a PostgreSQL; without workers a test starts it."""
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        _start_shared_server(config)
    else:
        # Taken away, because the service refuses settings that it does not know.
        config.stash[_own_server] = os.environ.pop(OWN_SERVER, None)


def _start_shared_server(config: pytest.Config) -> None:
    """Start a PostgreSQL that ends with this process; the workers inherit its address."""
    if OWN_SERVER not in os.environ and config.getoption("--engine") != "sqlite":
        stack = ExitStack()
        config.add_cleanup(stack.close)
        server = stack.enter_context(running_postgresql(config.getoption("--postgresql")))
        os.environ[OWN_SERVER] = server.url


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what touches a database on both engines, but where a mark names one."""
    if "engine" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("--engine")
        names = [name for name in _engines(metafunc.definition) if chosen in {None, name}]
        metafunc.parametrize("engine", names, indirect=True, scope="session")


def _engines(test: pytest.Item) -> tuple[str, ...]:
    if test.get_closest_marker("postgresql"):
        return ("postgresql",)
    if test.get_closest_marker("sqlite") or test.get_closest_marker("any_engine"):
        return ("sqlite",)
    return ENGINES


@pytest.fixture(autouse=True)
def log_of_the_test_alone() -> Iterator[None]:
    """End the log that a command has begun in this process."""
    yield
    root = logging.getLogger()
    for handler in [*root.handlers]:
        if isinstance(handler, LogHandler):
            root.removeHandler(handler)
    events.has_requests = events.has_writes = False


@pytest.fixture(scope="session")
def interpreted_first(pytestconfig: pytest.Config) -> int:
    """How often graphql-core executes an operation before it is compiled."""
    return 10**9 if pytestconfig.getoption("--interpreted") else 0


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def engine(
    request: pytest.FixtureRequest,
    pytestconfig: pytest.Config,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Engine]:
    folder = tmp_path_factory.mktemp("databases")
    own_server = pytestconfig.stash[_own_server]
    version = pytestconfig.getoption("--postgresql")
    with engine_of(request.param, folder, own_server, version) as engine:
        yield engine


@pytest.fixture
def database_url(request: pytest.FixtureRequest, engine: Engine) -> Iterator[str]:
    """The address of a database with the tables and no rows."""
    url = engine.new_database(is_unused=request.node.get_closest_marker("plans") is not None)
    yield url
    engine.drop(url)


@pytest.fixture
def settings(database_url: str, interpreted_first: int) -> Settings:
    """Settings of a service with an empty database of its own, without limits of rates."""
    settings = Settings(database_url=database_url, interpreted_first=interpreted_first)
    return settings.without_default_rate_limits()


@pytest.fixture(scope="module")
def blank(engine: Engine, interpreted_first: int) -> Iterator[Settings]:
    """Settings of a database that the examples of a property-based test share."""
    url = engine.new_database()
    yield Settings(
        database_url=url, interpreted_first=interpreted_first
    ).without_default_rate_limits()
    engine.drop(url)


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
