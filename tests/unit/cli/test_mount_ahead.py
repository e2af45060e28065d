"""What `imgfs mount` does while it waits for a registry."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fusefs.cli import kept_mounts
from fusefs.cli.commands import mount
from fusefs.cli.imports import BackgroundImport
from fusefs.cli.mounting import Mounting
from fusefs.cli.parsing.mount8 import parse_call
from fusefs.errors import ImgfsError
from fusefs.mount.mountpoint import Mountpoint
from fusefs.sources.registry import ahead
from fusefs.sources.tls import Tls

_DIGEST = f"sha256:{'0' * 64}"


class _Ended(Exception):
    """The image would be opened."""


def _begun(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *words: str, **environment: str
) -> list[tuple[str, float | None, bool]]:
    """Return host, timeout and trust of the connections that `imgfs mount` begins before it opens the image."""
    begun = list[tuple[str, float | None, bool]]()

    def open_nothing(*_: object) -> None:
        raise _Ended

    def begin(host: str, timeout: float | None, _: object, find_tls: Callable[[], Tls]) -> None:
        assert claimed, "the mountpoint is claimed before any thread runs: that may fork"
        begun.append((host, timeout, find_tls().verify))

    claimed, claim = list[Mountpoint](), Mounting._claimed

    def note(mounting: Mounting) -> Mountpoint:
        claimed.append(claim(mounting))
        return claimed[0]

    monkeypatch.setattr(Mounting, "_claimed", note)
    monkeypatch.setattr(ahead, "connect_early", begin)
    monkeypatch.setattr(kept_mounts, "kept_mount", open_nothing)
    arguments = parse_call("imgfs", ("mount", *words, os.fspath(tmp_path)))
    with pytest.raises((_Ended, ImgfsError)):
        mount.mount_image(arguments, {"HOME": "/nonexistent", **environment})
    return begun


@pytest.mark.parametrize(
    ("words", "begun"),
    [
        (("docker://localhost:5000/app",), ("localhost:5000", None, True)),
        (("docker://localhost:5000/app:1",), ("localhost:5000", None, True)),
        (("--timeout", "5", "--insecure", "docker://registry.example/app"), ("registry.example", 5.0, False)),
        (("docker://nginx",), ("registry-1.docker.io", None, True)),
    ],
)
def test_the_registry_of_a_tag_is_connected_to(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: tuple[str, ...], begun: tuple[str, float | None, bool]
) -> None:
    assert _begun(monkeypatch, tmp_path, *words) == [begun]


@pytest.mark.parametrize(
    "words",
    [
        ("nginx",),
        (f"docker://localhost:5000/app@{_DIGEST}",),
        (f"docker://localhost:5000/app:1@{_DIGEST}",),
        ("--offline", "docker://localhost:5000/app"),
        ("--all", "docker://localhost:5000"),
        ("docker://",),
        ("docker://localhost:5000//app",),
        ("docker://registry.example:/app",),
    ],
)
def test_nothing_is_connected_to_where_none_may_be_needed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: tuple[str, ...]
) -> None:
    assert _begun(monkeypatch, tmp_path, *words) == []


@pytest.mark.parametrize(
    "text",
    [
        '[[registry]]\nlocation = "localhost:5000"\nblocked = true\n',
        '[[registry]]\nlocation = "localhost:5000"\n[[registry.mirror]]\nlocation = "localhost:5001"\n',
        "nonsense",
    ],
)
def test_registries_conf_decides(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    configuration = tmp_path / "registries.conf"
    configuration.write_text(text)
    (tmp_path / "mnt").mkdir()
    words = ("docker://localhost:5000/app",)
    assert _begun(monkeypatch, tmp_path / "mnt", *words, CONTAINERS_REGISTRIES_CONF=os.fspath(configuration)) == []


def test_more_modules_are_imported_until_somebody_waits() -> None:
    importing = BackgroundImport("json", "string", "ast")
    names = importing._remaining()
    assert [next(names), next(names)] == ["json", "string"]
    importing.finish()
    assert list(names) == []
    importing = BackgroundImport("json", "string")
    importing.finish()
    assert list(importing._remaining()) == ["json"]
