"""Fixtures of the tests of archives at URLs."""

from collections.abc import Iterator

import pytest

from tests.support.fault_proxy import Proxy, fault_proxy
from tests.support.file_server import FileServer, file_server


@pytest.fixture(name="server")
def server_fixture() -> Iterator[FileServer]:
    """Give a web server without files."""
    with file_server() as made:
        yield made


@pytest.fixture(name="proxy")
def proxy_fixture(server: FileServer) -> Iterator[Proxy]:
    """Give a proxy in front of that server, without faults."""
    with fault_proxy(server.host) as made:
        yield made
