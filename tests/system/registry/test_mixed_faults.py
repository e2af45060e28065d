"""Faults of all kinds, drawn at random, in all requests of many reads: what an attempt cures is never seen."""

import random
from pathlib import Path

import pytest

import fusefs
from tests.support.builders import layer
from tests.support.fault_proxy import Asked, Fault, Proxy, Reply, cut, flip, headers, status
from tests.support.layouts import Layout
from tests.support.registries import Registry, push

FILES = {f"file{number}": random.Random(number).randbytes(20_000) for number in range(3)}
FAULTS = 60
"""Faults of all runs together."""


class Faults:
    """Commits random faults in two of three requests for the same path, and counts them."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._in_a_row: dict[str, int] = {}
        self.count = 0

    def fault(self, asked: Asked, reply: Reply) -> Reply:
        """Return the reply with a fault."""
        draw = self._random
        before = self._in_a_row.get(asked.path, 0)
        if before == 2 or not reply.body:
            self._in_a_row[asked.path] = 0
            return reply
        self._in_a_row[asked.path] = before + 1
        self.count += 1
        where = draw.randrange(len(reply.body))
        kinds: list[Fault] = [
            cut(where),
            cut(where, reset=True),
            status(500),
            status(503, b"{}"),
            status(408),
            status(429, Retry_After="0"),
        ]
        if "Range" in asked.headers:
            kinds.append(headers(Content_Range="bytes 0-0/1"))
        elif before == 0:  # a second one in the same transfer would be an error
            kinds.append(flip(where))
        return draw.choice(kinds)(asked, reply)


@pytest.mark.parametrize("compression", [None, "gzip", "zstd"])
def test_random_faults_are_not_seen(server: Registry, proxy: Proxy, tmp_path: Path, compression: str | None) -> None:
    layout = Layout()
    tars = [layer({name: data}) for name, data in FILES.items()]
    push(layout.list(layout.image(tars, compression), "1"), server)
    faults = Faults(seed=len(str(compression)))
    proxy.always = {"/v2/": faults.fault}
    while faults.count < FAULTS // 3:
        with fusefs.open_image(
            proxy.image(), tmpdir=str(tmp_path), cache=False, environment={"HOME": str(tmp_path)}
        ) as opened:
            assert {path.name: path.read_bytes() for path in opened.rootfs.iterdir()} == FILES
