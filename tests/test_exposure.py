"""What keeps the service safe where it is reached from: TLS, proxies, warnings, secret files."""

import ipaddress
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from app.cli import main
from app.settings import Settings
from tests.support.live import serving
from tests.support.process import serve

Output = pytest.CaptureFixture[str]
Environment = pytest.MonkeyPatch

EVERYWHERE = "0.0.0.0"  # noqa: S104


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1, signed by itself, with its key in the same file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "service.test")])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    file.write_bytes(
        built.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return file


# TLS


def test_it_serves_https_and_its_health_command_asks_by_https(
    tmp_path: Path, certificate: Path, monkeypatch: Environment, capsys: Output
) -> None:
    with serve(tmp_path / "demo.db", tls_certificate=str(certificate), log=tmp_path / "log") as up:
        origin = up.origin
        trusting = ssl.create_default_context(cafile=certificate)
        answer = httpx2.get(f"{origin}/healthz", verify=trusting)
        monkeypatch.setenv("TICKET_ACTIVITY_PORT", origin.rpartition(":")[2])
        monkeypatch.setenv("TICKET_ACTIVITY_TLS_CERTIFICATE", str(certificate))
        status = main(["health"])

    assert origin.startswith("https://")
    assert answer.json() == {"status": "alive"}
    assert (status, capsys.readouterr().out) == (0, '{"status":"ready"}\n')
    printed = (tmp_path / "log").read_text()
    assert f" serves {origin} with " in printed
    assert "demo tokens" not in printed


def refusal(capsys: Output) -> str:
    assert main(["serve"]) == 1
    printed = capsys.readouterr()
    [line] = printed.err.splitlines()
    return line


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "No such file"), ("no certificate", "PEM lib")]
)
def test_an_unusable_certificate_is_one_line(
    tmp_path: Path, monkeypatch: Environment, capsys: Output, content: str | None, reason: str
) -> None:
    file = tmp_path / "certificate.pem"
    if content:
        file.write_text(content)
    monkeypatch.setenv("TICKET_ACTIVITY_TLS_CERTIFICATE", str(file))

    line = refusal(capsys)

    assert f"TICKET_ACTIVITY_TLS_CERTIFICATE {file}" in line
    assert reason in line


def test_a_key_with_a_password_is_refused_and_not_asked_for(
    tmp_path: Path, certificate: Path, monkeypatch: Environment, capsys: Output
) -> None:
    key = serialization.load_pem_private_key(certificate.read_bytes(), None)
    encrypted = tmp_path / "key.pem"
    encrypted.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    monkeypatch.setenv("TICKET_ACTIVITY_TLS_CERTIFICATE", str(certificate))
    monkeypatch.setenv("TICKET_ACTIVITY_TLS_KEY", str(encrypted))

    assert "the key has a password" in refusal(capsys)


def test_a_key_without_a_certificate_is_one_line(monkeypatch: Environment, capsys: Output) -> None:
    monkeypatch.setenv("TICKET_ACTIVITY_TLS_KEY", "key.pem")

    assert "TICKET_ACTIVITY_TLS_KEY needs TICKET_ACTIVITY_TLS_CERTIFICATE" in refusal(capsys)


# Proxies


@pytest.mark.parametrize(
    ("proxies", "seen"),
    [
        ("", ("127.0.0.1", "http")),
        ("192.0.2.1", ("127.0.0.1", "http")),
        ("127.0.0.1", ("198.51.100.7", "https")),
        ("192.0.2.0/24,127.0.0.0/8", ("198.51.100.7", "https")),
    ],
)
async def test_forwarded_headers_are_believed_from_named_proxies_only(
    proxies: str, seen: tuple[str, str]
) -> None:
    async def echo(request: Request) -> PlainTextResponse:
        assert request.client
        return PlainTextResponse(f"{request.client.host} {request.url.scheme}")

    app = Starlette(routes=[Route("/", echo)])
    headers = {"X-Forwarded-For": "198.51.100.7", "X-Forwarded-Proto": "https"}
    async with (
        serving(app, Settings(trusted_proxies=proxies)) as origin,
        httpx2.AsyncClient(base_url=origin) as http,
    ):
        answer = await http.get("/", headers=headers)

    assert tuple(answer.text.split()) == seen


@pytest.mark.parametrize("proxies", ["*", "nginx", "10.0.0.1/8", "127.0.0.1,", "127.0.0.1, ::1"])
def test_a_proxy_that_is_no_address_is_one_line(
    monkeypatch: Environment, capsys: Output, proxies: str
) -> None:
    monkeypatch.setenv("TICKET_ACTIVITY_TRUSTED_PROXIES", proxies)

    assert "TICKET_ACTIVITY_TRUSTED_PROXIES" in refusal(capsys)


# Warnings


def test_a_public_address_with_the_demo_or_without_tls_warns_in_a_line_each(tmp_path: Path) -> None:
    with serve(tmp_path / "demo.db", host=EVERYWHERE, log=tmp_path / "public"):
        printed = (tmp_path / "public").read_text()
    with serve(
        tmp_path / "demo.db",
        host=EVERYWHERE,
        trusted_proxies="10.0.0.1",
        log=tmp_path / "proxied",
    ):
        behind_proxy = (tmp_path / "proxied").read_text()

    assert printed.count("demo tokens") == 1
    assert printed.count("can be read on their way") == 1
    assert (behind_proxy.count("demo tokens"), behind_proxy.count("can be read")) == (1, 0)


# Secrets in files


def test_a_setting_may_be_in_a_file(
    tmp_path: Path, monkeypatch: Environment, capsys: Output
) -> None:
    secret = tmp_path / "url"
    secret.write_text(f"sqlite+aiosqlite:///{tmp_path}/from-a-file.db\n")
    monkeypatch.setenv("TICKET_ACTIVITY_DATABASE_URL_FILE", str(secret))

    assert main(["migrate"]) == 0

    assert (tmp_path / "from-a-file.db").exists()


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("TICKET_ACTIVITY_DATABASE_URL_FILE", "/nowhere/url", "names /nowhere/url: No such file"),
        ("TICKET_ACTIVITY_PORT_FILE", "/dev/null", "TICKET_ACTIVITY_PORT is ''"),
        ("TICKET_ACTIVITY_PROT_FILE", "/dev/null", "There is no setting TICKET_ACTIVITY_PROT_FILE"),
    ],
)
def test_a_file_that_does_not_do_is_one_line(
    monkeypatch: Environment, capsys: Output, name: str, value: str, reason: str
) -> None:
    monkeypatch.setenv(name, value)

    assert reason in refusal(capsys)


def test_a_setting_given_twice_is_one_line(monkeypatch: Environment, capsys: Output) -> None:
    monkeypatch.setenv("TICKET_ACTIVITY_PORT", "8000")
    monkeypatch.setenv("TICKET_ACTIVITY_PORT_FILE", "/dev/null")

    assert "TICKET_ACTIVITY_PORT and TICKET_ACTIVITY_PORT_FILE are both given" in refusal(capsys)
