"""Uvicorn's protocol for WebSocket, with bounds on its memory and a shorter way to send a text."""

import logging
from typing import Any, Final

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame
from websockets.protocol import State

from app.server.refusals import bad_request

# At INFO three lines would say of each connection that it was accepted, opened and closed. Not a
# child of Uvicorn's loggers: its logging configuration resets the level of those.
_websocket_log: Final = logging.getLogger(__name__)
_websocket_log.setLevel(logging.WARNING)

_TWO_BYTES: Final = 126
_EIGHT_BYTES: Final = 65_536
"""From these sizes on, the length of a frame takes so many bytes beside the usual one."""


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """The WebSocket of one client."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.logger = self.conn.logger = _websocket_log

    def data_received(self, data: bytes) -> None:
        """Refuse a handshake that the library cannot read; Uvicorn would leave it unanswered."""
        super().data_received(data)
        if self.conn.handshake_exc and not self.transport.is_closing():
            refusal = b"".join(self.conn.data_to_send()) or bad_request("A handshake has no body.")
            self.transport.write(refusal)
            self.transport.close()

    async def send(self, message: ASGISendEvent) -> None:
        """Send a message; a text without the steps that only other messages need."""
        text = message.get("text") if message["type"] == "websocket.send" else None
        if text is None or self.conn.extensions or self.conn.state is not State.OPEN:
            await super().send(message)
            return
        await self.writable.wait()
        if self.disconnected or self.conn.state is not State.OPEN:
            raise ClientDisconnected
        self.transport.write(_text_frame(str(text).encode()))

    def handle_ping(self) -> None:
        """Answer, unless the client does not read: it may skip answers (RFC 6455 section 5.5.3)."""
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()

    def handle_cont(self, event: Frame) -> None:
        """Take the next frame of a message. Drop empty ones: they take memory but have no size."""
        if event.data or event.fin:
            super().handle_cont(event)


def _text_frame(data: bytes) -> bytes:
    """Return a message of one frame, which a server does not mask (RFC 6455 section 5.2)."""
    size = len(data)
    if size < _TWO_BYTES:
        return b"\x81%c%b" % (size, data)
    if size < _EIGHT_BYTES:
        return b"\x81\x7e%b%b" % (size.to_bytes(2), data)
    return b"\x81\x7f%b%b" % (size.to_bytes(8), data)
