"""A connection on which a test sends and reads the bytes of HTTP/1.1."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import NamedTuple


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, head: str, body: bytes = b"") -> None:
        """Send a request: its first line and headers, one a line, then its body."""
        self.writer.write(head.strip().replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)

    async def answer(self) -> Answer:
        """Read one response that declares its length."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return Answer(int(first.split()[1]), headers, body)

    async def is_closed(self) -> bool:
        """Wait for the end of what the server sends; False when something else comes."""
        return await self.reader.read(1) == b""


@asynccontextmanager
async def connect(origin: str) -> AsyncIterator[Connection]:
    host, port = origin.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        async with asyncio.timeout(30):
            yield Connection(reader, writer)
    finally:
        writer.close()
