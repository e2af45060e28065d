"""How names in a registry are spelled, and the folders of its repositories."""

import pytest

from fusefs.cli.catalogs import repositories
from fusefs.cli.catalogs.registry import RegistryProvider
from fusefs.cli.catalogs.repositories import Repositories
from fusefs.cli.catalogs.saves import Saves
from fusefs.cli.catalogs.spelling import Spelled, spelled
from fusefs.errors import UsageError
from fusefs.mount.catalog.provider import Folder, Link, Listed
from fusefs.oci.digest import Digest
from fusefs.oci.reference import registry_namespace
from fusefs.sources.registry.known import CATALOG, TAGS, KnownRegistry
from tests.conftest import TakeWarnings
from tests.support.conformance import SETTINGS

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


def test_what_lies_too_deep_is_left_out_and_that_is_said_once(take_warnings: TakeWarnings) -> None:
    known = Repositories("team")
    deepest = f"team/{'/'.join('abcdefghijklmnop')}/x"
    assert known.listed(dict.fromkeys(["team/app", deepest, *(f"team/{'d/' * 124}{number}" for number in range(99))]))
    assert known.folders(()) == {"a"}
    assert known.within(()) == [("app", "team/app"), ("team", "team")]
    assert known.within(tuple(b"%c" % letter for letter in b"abcdefghijklmnop")) == [("x", deepest)]
    assert known.listed(dict.fromkeys([f"team/{'d/' * 124}x"]))
    assert known.folders(()) == frozenset()
    (message,) = take_warnings()
    assert "99 repositories are not listed" in message


def test_folders_are_bounded_in_all(monkeypatch: pytest.MonkeyPatch, take_warnings: TakeWarnings) -> None:
    monkeypatch.setattr(repositories, "_MAX_FOLDERS", 4)
    known = Repositories("")
    assert known.listed(dict.fromkeys(["a/b/1", "a/b/2", "c/d/3", "a/b/c/4", "e", "c/d/5"]))
    known.found("f/g", "", there=True)
    assert known.folders(()) == {"a", "c"}
    assert known.folders((b"a",)) == {"b"}
    assert known.within((b"a", b"b")) == [("1", "a/b/1"), ("2", "a/b/2")]
    assert known.within((b"c", b"d")) == [("3", "c/d/3"), ("5", "c/d/5")]
    assert len(take_warnings()) == 1


def test_a_name_is_found_without_a_look_at_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = RegistryProvider("docker://localhost:1/team", SETTINGS, None, Saves(1))
    names = {CATALOG: dict.fromkeys(["team/app", "team/x/y"]), ("team/app", TAGS): {"latest": None}}
    monkeypatch.setattr(KnownRegistry, "_asked", lambda _, key: (names[key], True))
    provider.begin()
    listing = provider.question((), b"app")
    assert listing is not None
    listing.ask()

    def fail(*_: object) -> None:
        raise AssertionError("all names of a folder")

    monkeypatch.setattr(repositories._Index, "names", fail)
    monkeypatch.setattr(repositories._Index, "folders", fail)
    shown = provider.names
    assert [name for name in (b"x", b"app", b"app@latest") if shown.is_listed((), name)] == [b"x", b"app@latest"]
    assert (shown.find((), b"x"), shown.find((), b"app")) == (Folder(), Link(b"app@latest"))
    assert shown.key_of((), b"team@1") == ("team", "1")


def test_an_image_keeps_its_directory_until_nobody_knows_it_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    names = RegistryProvider("docker://localhost:1", SETTINGS, None, Saves(1)).names
    first, second, third = (Digest("sha256", letter * 64) for letter in "abc")
    value: list[Digest | bool] = [first]
    monkeypatch.setattr(KnownRegistry, "_asked", lambda *_: (value[0], True))

    def key_of(digest: Digest | None) -> str:
        value[0] = digest or True
        names._known.ask(("app", "t"))
        found = names.find((), b"app@t")
        assert isinstance(found, Listed)
        return found.key

    assert key_of(first) == "app:t"
    names.pin("app:t", str(first))
    moved = key_of(second)
    assert moved == f"app:t@{second}"
    names.pin(moved, str(second))
    assert (key_of(first), key_of(second), key_of(third)) == ("app:t", moved, f"app:t@{third}")
    names.unpin("app:t")
    assert [key_of(digest) for digest in (second, third, None)] == [moved, f"app:t@{third}", moved]
    names.unpin(moved)
    assert key_of(second) == "app:t"


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


def test_a_namespace_has_a_possible_port() -> None:
    with pytest.raises(UsageError, match=r"^bad reference 'h:65536/a': a port is a number from 1 to 65535$"):
        registry_namespace("h:65536/a")
