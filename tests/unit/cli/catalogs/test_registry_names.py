"""How names in a registry are spelled, and the folders of its repositories."""

import pytest

from fusefs.cli.catalogs.repositories import Repositories
from fusefs.cli.catalogs.spelling import Spelled, spelled
from fusefs.errors import UsageError
from fusefs.oci.reference import registry_namespace

DIGEST = f"sha256:{'a' * 64}"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("app", Spelled("app")),
        ("app@v1", Spelled("app", "@", tag="v1")),
        ("app:v1", Spelled("app", ":", tag="v1")),
        (f"app@{DIGEST}", Spelled("app", "@", digest=DIGEST)),
        *((name, None) for name in ("", "App", "a/b", "..", ".git", "app@", "app:", f"app:{DIGEST}", "a@b@c", "é")),
    ],
)
def test_spellings(name: str, expected: Spelled | None) -> None:
    assert spelled(name.encode()) == expected


def test_repositories_are_in_folders_and_a_repository_may_be_a_folder() -> None:
    known = Repositories("team")
    assert known.listed(dict.fromkeys(["team/app", "team/app/sub", "team/x/y"]))
    assert not known.listed(dict.fromkeys(["team/app", "team/app/sub", "team/x/y"]))
    assert known.folders(()) == {"app", "x"}
    assert known.within(()) == [("app", "team/app"), ("team", "team")]
    assert known.within((b"app",)) == [("sub", "team/app/sub")]
    assert known.named((b"x",), "y") == "team/x/y"
    assert known.named((), "team") == "team"


def test_what_was_looked_up_is_known_until_it_is_gone() -> None:
    known = Repositories("")
    known.found("a/b", "1", there=True)
    assert known.folders(()) == {"a"}
    assert (known.within((b"a",)), [*known.seen("a/b")]) == ([("b", "a/b")], ["1"])
    known.found("a/b", "1", there=False)
    assert [*known.seen("a/b")] == []
    known.found("a/b", "", there=False)
    assert (known.folders(()), known.within((b"a",))) == (frozenset(), [])
    for number in range(10_005):
        known.found(f"r{number}", "", there=True)
    assert len(known.within(())) <= 10_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("registry.example.com", ("registry.example.com", "")),
        ("localhost:5000/team/", ("localhost:5000", "team")),
        ("library", ("docker.io", "library")),
        ("index.docker.io/library/nginx", ("docker.io", "library/nginx")),
    ],
)
def test_a_namespace(text: str, expected: tuple[str, str]) -> None:
    assert registry_namespace(text) == expected


@pytest.mark.parametrize("text", ["", "/", "host.example/App", "host.example/a:1", f"host.example/a@{DIGEST}", "a b"])
def test_what_is_no_namespace(text: str) -> None:
    with pytest.raises(UsageError, match="--all takes a registry"):
        registry_namespace(text)
