"""The certificates of a registry: certs.d."""

from pathlib import Path

import pytest

from fusefs.errors import UsageError
from fusefs.sources.registry.certificates import find_tls
from fusefs.sources.tls import Tls


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
    (folder / "client.key").unlink()
    with pytest.raises(UsageError, match=r"TLS needs both files: .*client.key is missing"):
        find_tls("example.org:5000", environment, insecure=False)


@pytest.mark.parametrize("host", ["..", ".", "", "../example.org"])
def test_the_host_of_a_redirect_leads_nowhere_else(tmp_path: Path, host: str) -> None:
    folder = tmp_path / ".config" / "containers" / "certs.d"
    folder.mkdir(parents=True)
    for place in (folder, folder.parent, folder.parent / "example.org"):
        place.mkdir(exist_ok=True)
        (place / "x.crt").touch()
    environment = {"HOME": str(tmp_path)}
    assert find_tls(host, environment, insecure=False) == Tls(None, None, verify=True)
