"""The connection to a registry that is begun before the command is imported."""

import os
from pathlib import Path

import pytest

from fusefs.cli import ahead
from fusefs.cli.imports import BackgroundImport
from fusefs.cli.parsing.mount8 import parse_call
from fusefs.sources.registry import ahead as registry_ahead

_DIGEST = f"sha256:{'0' * 64}"


def _begun(monkeypatch: pytest.MonkeyPatch, *words: str, **environment: str) -> list[tuple[str, float | None, bool]]:
    """Return host, timeout and trust of the connections that are begun for a command line."""
    begun = list[tuple[str, float | None, bool]]()
    monkeypatch.setattr(
        registry_ahead,
        "connect_early",
        lambda host, timeout, _, find_tls: begun.append((host, timeout, find_tls().verify)),
    )
    ahead.connect_ahead(parse_call("imgfs", words), {"HOME": "/nonexistent", **environment})
    return begun


@pytest.mark.parametrize(
    ("words", "begun"),
    [
        (("mount", "docker://localhost:5000/app", "/mnt"), ("localhost:5000", None, True)),
        (("docker://localhost:5000/app:1", "/mnt"), ("localhost:5000", None, True)),
        (("cat", "docker://localhost:5000/app:1:/etc/passwd"), ("localhost:5000", None, True)),
        (("ls", "--timeout", "5", "--insecure", "docker://registry.example/app"), ("registry.example", 5.0, False)),
        (("inspect", "docker://nginx"), ("registry-1.docker.io", None, True)),
    ],
)
def test_the_registry_of_a_tag_is_connected_to(
    monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], begun: tuple[str, float | None, bool]
) -> None:
    assert _begun(monkeypatch, *words) == [begun]


@pytest.mark.parametrize(
    "words",
    [
        ("mount", "nginx", "/mnt"),
        ("mount", "docker-daemon:docker://nginx", "/mnt"),
        ("mount", f"docker://localhost:5000/app@{_DIGEST}", "/mnt"),
        ("mount", f"docker://localhost:5000/app:1@{_DIGEST}", "/mnt"),
        ("mount", "--offline", "docker://localhost:5000/app", "/mnt"),
        ("mount", "--all", "docker://localhost:5000", "/mnt"),
        ("mount", "docker://", "/mnt"),
        ("mount", "docker://localhost:5000//app", "/mnt"),
        ("list",),
        ("umount", "/mnt"),
    ],
)
def test_nothing_is_connected_to_where_none_may_be_needed(
    monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    assert _begun(monkeypatch, *words) == []


def test_a_mount_that_is_only_checked_connects_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = list[str]()
    monkeypatch.setattr(registry_ahead, "connect_early", lambda host, *_: begun.append(host))
    words = ("docker://localhost:5000/app", "/mnt", "-f", "-o", "ro")
    arguments = parse_call("/sbin/mount.imgfs", words)
    assert arguments.fake
    ahead.connect_ahead(arguments, {"HOME": "/nonexistent"})
    assert begun == []


@pytest.mark.parametrize(
    "text",
    [
        '[[registry]]\nlocation = "localhost:5000"\nblocked = true\n',
        '[[registry]]\nlocation = "localhost:5000"\n[[registry.mirror]]\nlocation = "localhost:5001"\n',
        "nonsense",
    ],
)
def test_registries_conf_decides(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    (tmp_path / "registries.conf").write_text(text)
    configuration = os.fspath(tmp_path / "registries.conf")
    words = ("ls", "docker://localhost:5000/app")
    assert _begun(monkeypatch, *words, CONTAINERS_REGISTRIES_CONF=configuration) == []


def test_more_modules_are_imported_until_somebody_waits() -> None:
    importing = BackgroundImport("json", "string", "ast")
    names = importing._remaining()
    assert [next(names), next(names)] == ["json", "string"]
    importing.finish()
    assert list(names) == []
    importing = BackgroundImport("json", "string")
    importing.finish()
    assert list(importing._remaining()) == ["json"]
