"""The listening socket: a new one, one of systemd (socket activation), or one kept over a reload.

systemd passes sockets from descriptor 3 on, and says how many in `LISTEN_FDS` to the process that
`LISTEN_PID` names (sd_listen_fds(3)). A reload passes the socket of this process the same way.
"""

import os
import resource
import signal
import socket
import ssl
import sys
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Final, NoReturn

from app.server.errors import CannotServe
from app.settings import ENV_PREFIX, Settings

_FIRST_PASSED: Final = 3
_KEPT: Final = "ticket-activity-kept"  # name of a socket that is passed by a reload
_BACKLOG: Final = 2048


def is_reload() -> bool:
    """Whether this process has just served, and goes on. Ask it before `listen`."""
    return os.environ.get("LISTEN_FDNAMES") == _KEPT


def listen(settings: Settings) -> socket.socket:
    """Return the socket that was passed to this process, or a new one. Raise CannotServe."""
    listener = _passed() or _bound(settings)
    if sys.platform == "linux":
        # Connections inherit it. Without it one whose client never reads stays for ever, also
        # when it was closed here: what is still to be sent keeps it.
        stall = int(settings.max_stall_seconds * 1000)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, stall)
    return listener


def origin_of(listener: socket.socket, settings: Settings) -> str:
    """Return the address as a URL without a path."""
    scheme = "https" if settings.tls_certificate else "http"
    host, port = listener.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def require_usable_certificate(settings: Settings) -> None:
    """Raise CannotServe where HTTPS is asked for and the certificate or its key is unusable."""
    certificate, key = settings.tls_certificate, settings.tls_key
    if certificate is None:
        if key:
            raise CannotServe(f"{ENV_PREFIX}TLS_KEY needs {ENV_PREFIX}TLS_CERTIFICATE.")
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, _no_password)
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        raise CannotServe(
            f"Cannot use {ENV_PREFIX}TLS_CERTIFICATE {certificate} with "
            f"{f'{ENV_PREFIX}TLS_KEY {key}' if key else 'the key in it'}: {error}."
        ) from None


def is_for_this_machine(listener: socket.socket, settings: Settings) -> bool:
    """Whether only this machine reaches the service, as far as the settings say."""
    host = listener.getsockname()[0]
    return ip_address(host).is_loopback and not settings.trusted_proxies


def exposure(listener: socket.socket, settings: Settings, *, has_demo: bool) -> Iterator[str]:
    """Yield what a service that can be reached from other machines gives away."""
    host = listener.getsockname()[0]
    if ip_address(host).is_loopback:
        return
    if has_demo:
        yield f"Whoever sees the demo tokens below may use them on {host}; they last a day."
    if not settings.tls_certificate and not settings.trusted_proxies:
        yield (
            f"Tokens sent to {host} can be read on their way: give {ENV_PREFIX}TLS_CERTIFICATE, "
            f"or put a proxy with HTTPS in front and name it in {ENV_PREFIX}TRUSTED_PROXIES."
        )


def restart_with(listener: socket.socket) -> NoReturn:
    """Run this command again in place of this process, with the socket.

    Clients that connect meanwhile wait in its queue.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # stays so until the new image handles it
    os.dup2(listener.fileno(), _FIRST_PASSED, inheritable=True)
    os.environ |= {
        "LISTEN_PID": str(os.getpid()),
        "LISTEN_FDS": "1",
        "LISTEN_FDNAMES": _KEPT,
    }
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606


def raise_descriptor_limit() -> None:
    """Allow as many open files as the system lets this user have: a client needs one."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _no_password() -> str:
    """Refuse a key with a password: OpenSSL would ask for it on the terminal."""
    raise ValueError("the key has a password")


def _passed() -> socket.socket | None:
    if os.environ.pop("LISTEN_PID", "") != str(os.getpid()):
        return None
    count = os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if count != "1":
        raise CannotServe(f"systemd passed {count} sockets; the service listens on one.")
    passed = socket.socket(fileno=_FIRST_PASSED)
    if passed.family not in (socket.AF_INET, socket.AF_INET6) or not _is_listening(passed):
        raise CannotServe("The socket that systemd passed is not a TCP socket that listens.")
    return passed


def _is_listening(passed: socket.socket) -> bool:
    return passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1


def _bound(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise CannotServe(
            f"Cannot listen on {settings.host} port {settings.port}: {error.strerror}. "
            f"{ENV_PREFIX}HOST and {ENV_PREFIX}PORT choose another."
        ) from None
    return listener
