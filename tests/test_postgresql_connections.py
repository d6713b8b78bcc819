"""Connections to PostgreSQL: through PgBouncer, by TLS, and where it refuses to begin or to end."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from uuid import uuid4

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sqlalchemy import make_url

from app.auth import Scope
from app.cli import main
from app.settings import Settings
from tests.support.engines import PostgresqlEngine
from tests.support.live import feed, listening, over_web_socket
from tests.support.postgresql import unprivileged
from tests.support.service import Client, start

pytestmark = pytest.mark.postgresql

PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that whoever runs the servers may read."""
    path = Path(tempfile.mkdtemp(prefix="ticket-activity-connections-"))
    if os.geteuid() == 0:
        shutil.chown(path, "nobody")
    yield path
    shutil.rmtree(path)


# PgBouncer in transaction mode


@contextmanager
def pooler(url: str, folder: Path, **options: object) -> Iterator[str]:
    """Run PgBouncer in transaction mode, with two connections to the server; yield the address."""
    if PGBOUNCER is None:
        pytest.skip("pgbouncer is not installed")
    address = make_url(url)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    options |= {"listen_addr": "127.0.0.1", "listen_port": port, "unix_socket_dir": ""}
    options |= {"auth_type": "any", "pool_mode": "transaction", "default_pool_size": 2}
    config = folder / "pgbouncer.ini"
    config.write_text(
        "[databases]\n"
        f"{address.database} = host={address.host} port={address.port} user={address.username}\n"
        "[pgbouncer]\n" + "".join(f"{name} = {value}\n" for name, value in options.items())
    )
    with subprocess.Popen([PGBOUNCER, "--quiet", str(config)], **unprivileged()) as process:
        while not is_open(port):
            assert process.poll() is None
        try:
            yield address.set(port=port).render_as_string(hide_password=False)
        finally:
            process.send_signal(signal.SIGTERM)


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def pooled(settings: Settings, folder: Path) -> Iterator[Settings]:
    """Settings of a service behind a pooler."""
    with pooler(settings.database_url, folder) as url:
        changed = {"database_url": url, "database_pooler": True, "database_poll_seconds": 0.05}
        yield settings.model_copy(update=changed)


async def test_two_processes_behind_a_pooler_write_read_and_follow(pooled: Settings) -> None:
    async with start(pooled) as one, start(pooled) as other, listening(one) as origin:
        here = await one.client()
        there = Client(other.http, here.actor_id, here.token)
        ticket_id = await here.create_ticket()
        entry = await here.create_activity(ticket_id, message="0")

        async with over_web_socket(origin, here.token, ticket_id, None) as changes:
            writes = await asyncio.gather(
                *(
                    client.put(ticket_id, entry["id"], {"message": f"{number} {client is here}"})
                    for number in range(20)
                    for client in (here, there)
                ),
                *(client.find(ticket_id, entry["id"]) for client in (here, there) * 20),
            )
            async with asyncio.timeout(20):
                told = [await anext(changes) for _ in range(40)]

        assert [each.status_code for each in writes[:40]] == [200] * 40  # type: ignore[union-attr]
        assert [change["ticketActivity"]["version"] for change in told] == [*range(2, 42)]
        page = await feed(there, ticket_id)
        assert page["nodes"][-1]["ticketActivity"]["version"] == 41
        assert [seq for seq, *_ in await one.history(ticket_id)] == [*range(1, 43)]


# TLS


def write_certificate(folder: Path, name: str) -> Path:
    """Write a key and a certificate of 127.0.0.1 that signs itself; return the certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for file, content in (
        (folder / f"{name}.key", private),
        (folder / f"{name}.pem", certificate.public_bytes(pem)),
    ):
        file.write_bytes(content)
        file.chmod(0o600)
        if os.geteuid() == 0:
            shutil.chown(file, "nobody")
    return folder / f"{name}.pem"


def test_a_certificate_is_verified_where_the_address_says_so(
    database_url: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """PgBouncer stands for the server, which the tests have without TLS."""
    root, other = write_certificate(folder, "root"), write_certificate(folder, "other")
    tls = {"client_tls_cert_file": root, "client_tls_key_file": folder / "root.key"}
    monkeypatch.setenv("TICKET_ACTIVITY_DATABASE_START_SECONDS", "0")
    monkeypatch.setenv("TICKET_ACTIVITY_DATABASE_POOLER", "true")
    with pooler(database_url, folder, client_tls_sslmode="require", **tls) as url:

        def migrate_with(options: str) -> int:
            monkeypatch.setenv("TICKET_ACTIVITY_DATABASE_URL", f"{url}?{options}")
            return main(["migrate"])

        assert migrate_with(f"sslmode=verify-full&sslrootcert={other}") == 1
        [line] = capsys.readouterr().err.splitlines()
        assert "certificate verify failed" in line
        assert migrate_with(f"sslmode=verify-full&sslrootcert={root}") == 0
        assert migrate_with("sslmode=require") == 0
        assert migrate_with("sslmode=disable") == 1


# How many there are

REDACT = """
mutation Redact($input: RedactTicketActivityInput!) {
  redactTicketActivity(input: $input) { userErrors { code } }
}
"""
SEARCH = """
query Search($id: ID!) {
  ticket(id: $id) { activities(first: 100, filter: {text: "before"}) { totalCount } }
}
"""
CONNECTIONS = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'ticket-activity'
"""


async def test_however_many_ask_at_once_a_process_opens_twelve_connections_at_most(
    settings: Settings, engine: PostgresqlEngine
) -> None:
    async with start(settings) as service:
        author = await service.client(*Scope)
        ticket_id = await author.create_ticket()
        entries = [await author.create_activity(ticket_id, message="before") for _ in range(30)]
        places = [{"ticketId": ticket_id, "activityId": entry["id"]} for entry in entries]
        key = {"Idempotency-Key": '"a"'}

        documents = await asyncio.gather(
            *(author.graphql(REDACT, input=place | {"reason": "asked"}) for place in places),
            *(author.graphql(SEARCH, id=ticket_id) for _ in places),
        )
        answers = await asyncio.gather(
            *(author.put(ticket_id, one["id"], {"message": "again"}, **key) for one in entries),
            *(author.get(ticket_id, one["id"]) for one in entries),
            *(service.http.get("/readyz") for _ in entries),
        )

        assert all("errors" not in document for document in documents)
        assert {answer.status_code for answer in answers} == {200, 422}  # the key is for one only
        [(count,)] = engine.server.execute(CONNECTIONS, settings.database_url)
        assert count <= 12 + 1  # and that of the test itself


# A transaction that does not begin or end as it should


@asynccontextmanager
async def spoiling(url: str) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Yield an address that leads to the server, and a list of words.

    Once, a word of the list is passed on with another last letter, and the server refuses it. A
    statement that an operator or a limit of time cancels leaves its transaction in the same state.
    """
    address = make_url(url)
    words: list[bytes] = []

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            for word in [word for word in words if word in data]:
                words.remove(word)
                data = data.replace(word, word[:-1] + b"x", 1)
            writer.write(data)
        writer.close()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, to_server = await asyncio.open_connection(address.host, address.port)
        await asyncio.gather(copy(reader, to_server), copy(answers, writer), return_exceptions=True)

    async with await asyncio.start_server(connect, "127.0.0.1", 0) as proxy:
        port = proxy.sockets[0].getsockname()[1]
        yield address.set(port=port).render_as_string(hide_password=False), words


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        (b"ROLLBACK", {"ok"}),
        (b"statement_timeout", {"ok", "BUSY"}),  # of a read, which is not repeated, or of a write
        (b"lock_timeout", {"ok"}),
        (b"COMMIT", {"ok", "WRITE_IN_DOUBT"}),
    ],
)
async def test_a_connection_whose_transaction_does_not_end_is_not_used_again(
    settings: Settings, word: bytes, expected: set[str]
) -> None:
    async with (
        spoiling(settings.database_url) as (url, words),
        start(settings.model_copy(update={"database_url": url})) as service,
    ):
        author = await service.client()
        entry = await author.create_activity(await author.create_ticket(), message="0")
        place = entry["ticketId"], entry["id"]

        async def use() -> set[str]:
            answers = [await author.get(*place), await author.put(*place, {"message": "1"})]
            return {str(answer.json().get("code", "ok")) for answer in answers}

        assert await use() == {"ok"}
        words.append(word)
        for _ in range(4):
            assert await use() <= expected
        assert not words
        assert await use() == {"ok"}


# A server that takes no more connections


@pytest.fixture
def role(engine: PostgresqlEngine) -> Iterator[str]:
    """A role that may read and write, and is no superuser."""
    name = f"ticket_activity_role_{uuid4().hex}"
    engine.server.execute(f"CREATE ROLE {name} LOGIN IN ROLE pg_read_all_data, pg_write_all_data")
    yield name
    engine.server.execute(f"DROP ROLE {name}")


async def test_reads_wait_for_an_open_connection_where_the_server_takes_no_more(
    settings: Settings, engine: PostgresqlEngine, role: str
) -> None:
    url = make_url(settings.database_url).set(username=role).render_as_string()
    changed = {"database_url": url, "migrate_at_start": False}
    async with start(settings.model_copy(update=changed)) as service:
        author = await service.client()
        entry = await author.create_activity(await author.create_ticket(), message="here")
        place = entry["ticketId"], entry["id"]
        await author.find(*place)
        engine.server.execute(f"ALTER ROLE {role} CONNECTION LIMIT 0")

        async def read() -> list[str]:
            return [found["message"] for _ in range(10) if (found := await author.find(*place))]

        found = await asyncio.gather(*(read() for _ in range(16)))

    assert found == [["here"] * 10] * 16
