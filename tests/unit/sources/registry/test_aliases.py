"""What short names are for Podman, for a hint."""

import os
from pathlib import Path

import pytest

from fusefs.sources.registry.registries_conf import alias_of


def _environment(folder: Path) -> dict[str, str]:
    return {"CONTAINERS_REGISTRIES_CONF": str(folder / "registries.conf"), "HOME": str(folder)}


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("img-a", "quay.example/team/a"),
        ("img-a:1", "quay.example/team/a:1"),
        ("img-a@sha256:0", "quay.example/team/a@sha256:0"),
        ("img-a:1@sha256:0", "quay.example/team/a:1@sha256:0"),
        ("ours/img", "quay.example/ours"),
        ("img-a:5000/app:1", ""),
        ("host:5000/img:1", "quay.example/host:1"),
        ("img-b", "later.example/b"),
        ("img-c", ""),
        ("img-d", ""),
        ("img-e", ""),
        ("quay.example/team/a", ""),
    ],
)
def test_a_later_file_replaces_an_alias_and_may_remove_it(tmp_path: Path, name: str, full: str) -> None:
    (tmp_path / "registries.conf").write_text(
        '[aliases]\n"img-a" = "quay.example/team/a"\n"ours/img" = "quay.example/ours"\n'
        '"host:5000/img" = "quay.example/host"\n'
        '"img-b" = "quay.example/b"\n"img-c" = "quay.example/c"\n"img-d" = 1\n'
    )
    added = tmp_path / ".config" / "containers" / "registries.conf.d"
    added.mkdir(parents=True)
    (added / "1.conf").write_text('[aliases]\n"img-b" = "later.example/b"\n"img-c" = ""\n')
    (added / "2.conf").write_text("aliases = 1")
    (added / "3.conf").write_text("[")
    assert alias_of(name, _environment(tmp_path)) == full


def test_without_files_there_is_none(tmp_path: Path) -> None:
    assert alias_of("img-a", _environment(tmp_path)) == ""


def test_what_podman_has_recorded_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)  # else it is one file of the machine
    (tmp_path / "registries.conf").write_text('[aliases]\n"img-a" = "quay.example/team/a"\n')
    for cache in (".cache", "other"):
        recorded = tmp_path / cache / "containers" / "short-name-aliases.conf"
        recorded.parent.mkdir(parents=True)
        recorded.write_text(f'[aliases]\n"img-a" = "{cache.lstrip(".")}.example/a"\n')
    environment = _environment(tmp_path)
    assert alias_of("img-a:1", environment) == "cache.example/a:1"
    assert alias_of("img-a", environment | {"XDG_CACHE_HOME": str(tmp_path / "other")}) == "other.example/a"
