"""The compose file says what the code understands: settings, commands, locks, services."""

from typing import Any

import pytest
import yaml

from app.settings import ENV_PREFIX, Settings
from app.store.database import POSTGRESQL, parse_url
from tests.support.image import DOCKERFILE
from tests.support.process import ROOT

COMPOSE: Any = yaml.safe_load((ROOT / "scripts/deploy/compose.yaml").read_text())
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


def test_two_services_wait_for_one_database_on_ports_of_their_own() -> None:
    assert len(SERVICES) == 2
    for service in SERVICES.values():
        assert service["depends_on"] == {"database": {"condition": "service_healthy"}}
    ports = [service["ports"] for service in SERVICES.values()]
    assert ports[0] != ports[1]
    assert all(port.endswith(f":{Settings.model_fields['port'].default}") for [port] in ports)
