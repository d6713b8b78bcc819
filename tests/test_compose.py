"""The compose file says what the code understands: settings, commands, locks, services."""

from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
import yaml

from app.settings import ENV_PREFIX, Settings
from app.store.database import POSTGRESQL, parse_url
from tests.support.image import DOCKERFILE
from tests.support.process import ROOT
from tests.support.redis import COMMAND, running_redis

COMPOSE: Any = yaml.safe_load((ROOT / "scripts/deploy/compose.yaml").read_text())
DEFAULT_PORT = 6379  # of Redis and Valkey
SERVICES = {name: value for name, value in COMPOSE["services"].items() if "build" in value}


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_service_has_known_settings_and_the_address_of_the_database(name: str) -> None:
    environment = SERVICES[name]["environment"]

    assert {key.removeprefix(ENV_PREFIX).lower() for key in environment} <= set(
        Settings.model_fields
    )
    address = parse_url(
        environment[f"{ENV_PREFIX}DATABASE_URL"].replace("${DATABASE_PASSWORD:?}", "secret")
    )
    database = COMPOSE["services"][str(address.host)]["environment"]
    assert address.drivername == POSTGRESQL
    assert (address.username, address.database) == (
        database["POSTGRES_USER"],
        database["POSTGRES_DB"],
    )


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_service_is_the_image_that_is_tested_confined(name: str) -> None:
    service = SERVICES[name]
    build = service["build"]
    context = (ROOT / "scripts/deploy" / build["context"]).resolve()

    assert context == ROOT
    assert context / build["dockerfile"] == DOCKERFILE
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]


@pytest.mark.skipif(COMMAND is None, reason="needs redis-server or valkey-server")
def test_services_share_their_counts_in_a_server_that_keeps_nothing() -> None:
    name = f"{ENV_PREFIX}RATE_LIMIT_REDIS_URL"
    [address] = {urlsplit(service["environment"][name]) for service in SERVICES.values()}
    server = COMPOSE["services"][address.hostname]

    with (
        running_redis(server["command"][1:]) as running,
        redis.Redis.from_url(running.url) as client,
    ):
        client.incr("count")
        found = client.config_get("save", "maxmemory", "maxmemory-policy")

    assert address.scheme in server["image"]
    assert address.port == DEFAULT_PORT
    assert found == {
        "save": "",
        "maxmemory": str(64 * 1024**2),
        "maxmemory-policy": "volatile-ttl",
    }
    assert "ports" not in server
    assert server["read_only"]
    assert server["cap_drop"] == ["ALL"]


def test_two_services_wait_for_one_database_on_ports_of_their_own() -> None:
    assert len(SERVICES) == 2
    for service in SERVICES.values():
        assert service["depends_on"] == {"database": {"condition": "service_healthy"}}
    ports = [service["ports"] for service in SERVICES.values()]
    assert ports[0] != ports[1]
    assert all(port.endswith(f":{Settings.model_fields['port'].default}") for [port] in ports)
