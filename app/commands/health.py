"""The command `health`. A container runs it every few seconds, so it imports little."""

import argparse
import ssl
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Final

from app.environment import read_settings
from app.errors import OperatorError
from app.settings import Settings

_HEALTH_SECONDS: Final = 5
_MAX_ANSWER_BYTES: Final = 10_000


def check_health(_options: argparse.Namespace) -> None:
    """Ask the service that the settings name whether it is ready."""
    settings = read_settings()
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104
    connection = _local_connection(settings, host)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        answer = response.read(_MAX_ANSWER_BYTES).decode(errors="replace")
    except (OSError, HTTPException) as error:
        raise OperatorError(
            f"No answer from {host} port {settings.port}: {error}. Does the service run there? "
            "TICKET_ACTIVITY_HOST and TICKET_ACTIVITY_PORT say where it is asked."
        ) from None
    finally:
        connection.close()
    if response.status != HTTPStatus.OK:
        line = " ".join(answer.split())
        raise OperatorError(f"{host} port {settings.port} answers {response.status}: {line}")
    print(answer)


def _local_connection(settings: Settings, host: str) -> HTTPConnection:
    if settings.tls_certificate is None:
        return HTTPConnection(host, settings.port, timeout=_HEALTH_SECONDS)
    # The certificate names the service as clients call it; nothing secret is sent here.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return HTTPSConnection(host, settings.port, timeout=_HEALTH_SECONDS, context=context)
