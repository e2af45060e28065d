"""Fixtures of the tests of registries."""

from collections.abc import Iterator

import pytest

from tests.support.fault_proxy import Proxy, fault_proxy
from tests.support.registries import Registry, registry


@pytest.fixture(name="server", scope="module")
def server_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """Give a registry without TLS and authorization."""
    with registry(tmp_path_factory.mktemp("registry")) as made:
        yield made


@pytest.fixture(name="proxy")
def proxy_fixture(server: Registry) -> Iterator[Proxy]:
    """Give a proxy in front of that registry, without faults."""
    with fault_proxy(server.host) as made:
        yield made
