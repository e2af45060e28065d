"""Servers for connections that are begun early; none is left."""

import socket
from collections.abc import Iterator

import pytest

from fusefs.sources.servers.early import drop


@pytest.fixture(autouse=True)
def _none_left() -> Iterator[None]:
    yield
    drop()


@pytest.fixture(name="server")
def listening() -> Iterator[socket.socket]:
    """Give a server that accepts nothing by itself."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(5)
        yield server
