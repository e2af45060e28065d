"""The certificates of a registry: certs.d."""

from pathlib import Path

import pytest

from fusefs.errors import UsageError
from fusefs.image.model import Traffic
from fusefs.sources.registry.client import Client
from fusefs.sources.registry.places import Place
from fusefs.sources.servers.certificates import find_tls
from fusefs.sources.tls import Tls
from tests.support.conformance import SETTINGS


def test_the_folder_of_exactly_this_host_counts(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path)}
    folder = tmp_path / ".config" / "containers" / "certs.d" / "example.org:5000"
    folder.mkdir(parents=True)
    assert find_tls("example.org:5000", environment, insecure=False) == Tls(None, None, verify=True)
    for name in ("b.crt", "a.crt", "client.cert", "client.key", "README"):
        (folder / name).touch()
    pair = folder / "client.cert", folder / "client.key"
    found = find_tls("example.org:5000", environment, insecure=True)
    assert found == Tls(None, pair, verify=False, more=(folder / "a.crt", folder / "b.crt"))
    assert find_tls("example.org", environment, insecure=False) == Tls(None, None, verify=True)
    for missing in ("client.key", "client.cert"):
        (folder / missing).unlink()
        with pytest.raises(UsageError, match=rf"TLS needs both files: .*{missing} is missing"):
            find_tls("example.org:5000", environment, insecure=False)
        (folder / missing).touch()


def test_all_certificates_of_all_hosts_are_used(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path)}
    one, two = (tmp_path / ".config" / "containers" / "certs.d" / name for name in ("one", "two"))
    for folder in (one, two):
        folder.mkdir(parents=True)
        for name in ("ca.crt", "b.cert", "b.key", "a.cert", "a.key"):
            (folder / name).touch()
    found = find_tls("one", environment, "two", "one", "three", insecure=False)
    pairs = [(folder / f"{name}.cert", folder / f"{name}.key") for folder in (one, two) for name in ("a", "b")]
    assert found == Tls(None, pairs[0], True, (one / "ca.crt", two / "ca.crt"), tuple(pairs[1:]))


@pytest.mark.parametrize("name", ["docker.io", "registry-1.docker.io"])
def test_docker_hub_has_two_names(tmp_path: Path, name: str) -> None:
    folder = tmp_path / ".config" / "containers" / "certs.d" / name
    folder.mkdir(parents=True)
    (folder / "ca.crt").touch()
    client = Client(SETTINGS._replace(environment={"HOME": str(tmp_path)}), Traffic())
    for host in ("registry-1.docker.io", "auth.docker.io"):
        assert client.tls(Place("docker.io", "a"), host).more == (folder / "ca.crt",)
    assert client.tls(Place("example.org", "a"), "example.org").more == ()


@pytest.mark.parametrize("host", ["..", ".", "", "../example.org", "example.org\0"])
def test_the_host_of_a_redirect_leads_nowhere_else(tmp_path: Path, host: str) -> None:
    folder = tmp_path / ".config" / "containers" / "certs.d"
    folder.mkdir(parents=True)
    for place in (folder, folder.parent, folder.parent / "example.org"):
        place.mkdir(exist_ok=True)
        (place / "x.crt").touch()
    environment = {"HOME": str(tmp_path)}
    assert find_tls(host, environment, insecure=False) == Tls(None, None, verify=True)
