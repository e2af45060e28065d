"""A link with a delay and a rate in front of a server on loopback: this kernel has no netem.

``python -m tests.support.slow_link UPSTREAM_PORT MILLISECONDS MEGABITS`` prints its port and serves until it is killed.
"""

import asyncio
import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

_CHUNK = 1 << 16


class _Link:
    """The direction to the client, whose rate all connections share."""

    def __init__(self, round_trip: float, rate: float) -> None:
        """Delay each direction by half of *round_trip* seconds; send *rate* bytes in a second."""
        self.delay = round_trip / 2
        self.rate = rate
        self.free_at = 0.0

    def due(self, size: int) -> float:
        """Return when the last of *size* more bytes arrives, by the clock of the loop."""
        self.free_at = max(asyncio.get_running_loop().time(), self.free_at) + size / self.rate
        return self.free_at + self.delay


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: _Link, *, down: bool) -> None:
    queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(64)
    loop = asyncio.get_running_loop()

    async def send() -> None:
        while True:
            due, data = await queue.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            if not data:
                break
            writer.write(data)
            await writer.drain()
        writer.close()

    sending = asyncio.create_task(send())
    with contextlib.suppress(OSError):
        while data := await reader.read(_CHUNK):
            await queue.put((link.due(len(data)) if down else loop.time() + link.delay, data))
    await queue.put((loop.time() + link.delay, b""))
    with contextlib.suppress(OSError):
        await sending


async def _serve(upstream: int, link: _Link) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(2 * link.delay)  # as the handshake takes
        theirs, ours = await asyncio.open_connection("127.0.0.1", upstream)
        await asyncio.gather(
            _pass_on(theirs, writer, link, down=True), _pass_on(reader, ours, link, down=False), return_exceptions=True
        )

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextlib.contextmanager
def slow_link(host: str, milliseconds: int = 50, megabits: int = 100) -> Iterator[str]:
    """Run the link in front of the server at *host*, and give its own host."""
    port = re.sub(r".*:", "", host)
    command = [sys.executable, "-m", "tests.support.slow_link", port, str(milliseconds), str(megabits)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        assert process.stdout is not None
        try:
            yield f"localhost:{int(process.stdout.readline())}"
        finally:
            process.kill()


if __name__ == "__main__":
    _upstream, _milliseconds, _megabits = map(int, sys.argv[1:])
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(_upstream, _Link(_milliseconds / 1000, _megabits * 125_000)))
