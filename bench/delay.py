"""A wire with latency.

    python bench/delay.py HOST:PORT MILLISECONDS

Forwards TCP connections, and holds back what the server says for so long. Everything that is under way is
held at the same time, as on a long wire, so that requests in flight overlap. Writes its own port as a line,
and ends when its standard input closes, that is, with the program that started it.
"""

from __future__ import annotations

import asyncio
import collections
import socket
import sys

HOST = "127.0.0.1"
CHUNK = 1 << 18


class Wire:
    """One connection to one server, with a latency in seconds on the way back."""

    def __init__(self, host: str, port: int, latency_s: float) -> None:
        """Keep the address."""
        self._host, self._port, self._latency_s = host, port, latency_s

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward a client's connection until either side closes it."""
        try:
            answers, requests = await asyncio.open_connection(self._host, self._port, limit=CHUNK)
        except OSError:
            writer.close()
            return
        for stream in (writer, requests):
            stream.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.gather(forward(reader, requests), self._forward_late(answers, writer))

    async def _forward_late(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        under_way: collections.deque[bytes] = collections.deque()

        def arrive() -> None:
            data = under_way.popleft()
            if data:
                writer.write(data)
            else:
                writer.close()

        while True:
            under_way.append(await read(reader))
            loop.call_later(self._latency_s, arrive)
            if not under_way[-1]:
                return


async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Forward one direction as it comes."""
    while data := await read(reader):
        writer.write(data)
        await writer.drain()
    writer.close()


async def read(reader: asyncio.StreamReader) -> bytes:
    """Read what is there; nothing means that the other side has gone."""
    try:
        return await reader.read(CHUNK)
    except OSError:
        return b""


async def main() -> None:
    """Forward connections until standard input closes."""
    host, _, port = sys.argv[1].rpartition(":")
    wire = Wire(host, int(port), float(sys.argv[2]) / 1000)
    server = await asyncio.start_server(wire.serve, HOST, 0, limit=CHUNK)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    closed = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), closed.set)
    await closed.wait()


if __name__ == "__main__":
    asyncio.run(main())
