"""Where the image of a reference is asked for: registries.conf."""

import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis.strategies import lists, sampled_from

from fusefs.errors import ImgfsError, Unavailable, UsageError
from fusefs.oci.reference import registry_reference
from fusefs.sources.registry import registries_conf
from fusefs.sources.registry.places import Place, find_places
from tests.support.processes import unprivileged

DIGEST = f"@sha256:{'0' * 64}"


def places(configuration: str, name: str, folder: Path, *, insecure: bool = False) -> list[Place]:
    """Return the places of *name* with this *configuration* alone."""
    path = folder / "registries.conf"
    path.write_text(configuration)
    environment = {"CONTAINERS_REGISTRIES_CONF": str(path), "HOME": str(folder)}
    return find_places(registry_reference(name), environment, insecure=insecure)


def test_without_a_configuration_it_is_the_registry_itself(tmp_path: Path) -> None:
    (place,) = places("", "nginx", tmp_path)
    assert (place, place.host) == (Place("docker.io", "library/nginx"), "registry-1.docker.io")
    assert places("", "localhost:5000/a", tmp_path, insecure=True) == [Place("localhost:5000", "a", insecure=True)]


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("example.org/team/app:1", Place("mirror.example", "ours/app")),
        (f"example.org/team/app{DIGEST}", Place("mirror.example", "ours/app")),
        ("example.org/team", Place("mirror.example", "ours")),
        ("example.org/teams/app", Place("example.org", "teams/app", insecure=True)),  # only whole parts match
        ("example.org/other", Place("example.org", "other", insecure=True)),
        ("example.org:5000/app", Place("example.org:5000", "app", insecure=True)),
        ("example.organic/app", Place("example.organic", "app")),
        ("a.wild.example/x", Place("a.wild.example", "x", insecure=True)),
        ("a.b.wild.example/x/y", Place("a.b.wild.example", "x/y", insecure=True)),
        ("a.wild.example:5000/x", Place("a.wild.example:5000", "x", insecure=True)),
        ("a.inner.wild.example/x", Place("inner.example", "x")),
        ("a.inner.wild.example:5000/x:1", Place("inner.example:5000", "x")),
        ("a.very.inner.wild.example/x", Place("a.very.inner.wild.example", "x")),
        ("wild.example/x", Place("wild.example", "x")),
        ("example.com/a/wild.example/x", Place("example.com", "a/wild.example/x")),
        ("nginx", Place("cache.example:8080", "hub/library/nginx")),
    ],
)
def test_the_longest_prefix_decides_and_its_location_replaces_it(tmp_path: Path, name: str, place: Place) -> None:
    configuration = """
        unqualified-search-registries = ["example.com"]
        [aliases]
        "nginx" = "example.com/nginx"
        [[registry]]
        location = "example.org"
        insecure = true
        [[registry]]
        prefix = "example.org/team"
        location = "mirror.example/ours"
        [[registry]]
        prefix = "*.wild.example"
        insecure = true
        [[registry]]
        prefix = "*.inner.wild.example"
        location = "inner.example"
        [[registry]]
        prefix = "*.very.inner.wild.example"
        [[registry]]
        prefix = "docker.io/"
        location = "cache.example:8080/hub//"
    """
    assert places(configuration, name, tmp_path) == [place]


def test_mirrors_come_first_if_they_serve_this_kind_of_reference(tmp_path: Path) -> None:
    configuration = """
        [[registry]]
        location = "example.org"
        [[registry.mirror]]
        location = "all.example"
        [[registry.mirror]]
        location = "digests.example"
        pull-from-mirror = "digest-only"
        insecure = true
        [[registry.mirror]]
        location = "tags.example"
        pull-from-mirror = "tag-only"
    """
    assert [place.name for place in places(configuration, "example.org/a:1", tmp_path)] == [
        *("all.example", "tags.example", "example.org")
    ]
    found = places(configuration, f"example.org/a{DIGEST}", tmp_path)
    assert [(place.name, place.insecure) for place in found] == [
        *(("all.example", False), ("digests.example", True), ("example.org", False))
    ]


def test_a_mirror_is_insecure_by_its_own_table_alone(tmp_path: Path) -> None:
    configuration = """
        [[registry]]
        location = "a.example"
        [[registry.mirror]]
        location = "b.example"
        [[registry]]
        location = "b.example"
        insecure = true
    """
    assert places(configuration, "a.example/x:1", tmp_path) == [Place("b.example", "x"), Place("a.example", "x")]
    assert places(configuration, "b.example/x:1", tmp_path) == [Place("b.example", "x", insecure=True)]


def test_a_mirror_may_end_with_a_slash(tmp_path: Path) -> None:
    configuration = '[[registry]]\nlocation = "a.example/"\n[[registry.mirror]]\nlocation = "b.example/c/"\n'
    found = places(configuration, "a.example/x:1", tmp_path)
    assert found == [Place("b.example", "c/x"), Place("a.example", "x")]


@pytest.mark.parametrize(
    ("configuration", "blocked"),
    [
        ('[[registry]]\nprefix = "*.example.org"\nblocked = true\n', ["a.example.org/x", "a.example.org:5000/x"]),
        ('[[registry]]\nlocation = "example.org/"\nblocked = true\n', ["example.org/x", "example.org:5000/x"]),
        ('[[registry]]\nlocation = "example.org/team"\nblocked = true\n', ["example.org/team", "example.org/team/x"]),
        ('[registries.block]\nregistries = ["example.org", "a.example/"]\n', ["example.org/x", "a.example/x"]),
        (
            """
            [[registry]]
            location = "example.org"
            blocked = true
            [[registry]]
            prefix = "a.example"
            location = "example.org/a"
            [[registry.mirror]]
            location = "example.org/b"
            """,
            ["a.example/x"],  # both of its places are
        ),
    ],
)
def test_a_blocked_registry_is_not_asked(tmp_path: Path, configuration: str, blocked: list[str]) -> None:
    for name in blocked:
        with pytest.raises(Unavailable, match="is blocked by the configuration"):
            places(configuration, name, tmp_path)
    assert places(configuration, "b.example/x", tmp_path) == [Place("b.example", "x")]


def test_a_mirror_that_is_blocked_itself_is_left_out(tmp_path: Path) -> None:
    configuration = """
        [[registry]]
        location = "a.example"
        [[registry.mirror]]
        location = "b.example"
        [[registry.mirror]]
        location = "c.example"
        [[registry]]
        location = "b.example"
        blocked = true
    """
    assert [place.name for place in places(configuration, "a.example/x", tmp_path)] == ["c.example", "a.example"]


def test_format_1_is_converted(tmp_path: Path) -> None:
    configuration = """
        [registries.search]
        registries = ["docker.io"]
        [registries.insecure]
        registries = ["example.org:5000"]
    """
    assert places(configuration, "example.org:5000/x", tmp_path)[0].insecure
    assert not places(configuration, "example.org/x", tmp_path)[0].insecure


def test_of_several_entries_with_one_prefix_the_first_counts(tmp_path: Path) -> None:
    configuration = "".join(f'[[registry]]\nprefix = "a.example"\nlocation = "{name}.example"\n' for name in "xyz")
    assert places(configuration, "a.example/a", tmp_path) == [Place("x.example", "a")]


def test_the_file_of_the_user_is_in_place_of_those_of_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(name: str, prefix: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'[[registry]]\nlocation = "{prefix}.example"\ninsecure = true\n')

    def insecure() -> list[str]:
        environment, names = {"HOME": str(tmp_path)}, ("system", "added", "user", "own")
        found = {
            name: find_places(registry_reference(f"{name}.example/a"), environment, insecure=False) for name in names
        }
        return [name for name in names if found[name][0].insecure]

    monkeypatch.setattr(registries_conf, "_SYSTEM", tmp_path / "registries.conf")
    assert insecure() == []
    write("registries.conf", "system")
    write("registries.conf.d/1.conf", "added")
    write(".config/containers/registries.conf.d/1.conf", "own")
    assert insecure() == ["system", "added", "own"]
    write(".config/containers/registries.conf", "user")
    assert insecure() == ["user", "own"]


def test_a_configuration_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(0)
    with unprivileged(), pytest.raises(UsageError, match=r"cannot read /.*/registries.conf: Permission denied"):
        find_places(registry_reference("example.org/a"), {"HOME": str(home)}, insecure=False)


def test_files_of_the_folder_come_later_and_replace(tmp_path: Path) -> None:
    folder = tmp_path / ".config" / "containers" / "registries.conf.d"
    folder.mkdir(parents=True)
    (folder / "2.conf").write_text('[[registry]]\nlocation = "example.org"\nblocked = true\n')
    (folder / "1.conf").write_text('[[registry]]\nlocation = "example.org"\n')
    (folder / "3.txt").write_text("not read")
    with pytest.raises(ImgfsError, match=r"example.org/a:1 is blocked by the configuration"):
        places('[[registry]]\nlocation = "example.org"\ninsecure = true\n', "example.org/a:1", tmp_path)


@pytest.mark.parametrize(
    ("configuration", "message"),
    [
        ("[[registry]", "is not TOML"),
        ("[[registry]]\ninsecure = true\n", "a registry has neither prefix nor location"),
        ('[[registry]]\nprefix = "a.example"\nblocked = true\n', "a.example has no location, and its prefix"),
        ('[[registry]]\nprefix = "example.org/a"\nlocation = "host"\n', "host is not the location of a repository"),
        ('[[registry]]\nprefix = "example.org"\nlocation = "host"\n', "host is not the location of a repository"),
        (
            '[[registry]]\nprefix = "example.org/a:latest"\nlocation = "example.org/a:2"\n',
            "example.org/a:2 states another tag or digest than example.org/a:latest",
        ),
        ('[[registry]]\nlocation = "https://example.com"\n', "the location https://example.com is a URL"),
        ('[[registry]]\nprefix = "http://example.com"\n', "the location http://example.com is a URL"),
        (
            '[[registry]]\nlocation = "x.example"\n[[registry.mirror]]\nlocation = "https://x"\n',
            "the location https://x is a URL",
        ),
        ('[[registry]]\nlocation = "x"\n[[registry.mirror]]\ninsecure = true\n', "a mirror of x has no location"),
        ('[[registry]]\nprefix = "*.example.org:5000"\n', "is not of the form"),
        ('[[registry]]\nlocation = "x"\nblocked = "true"\n', "blocked is not a boolean"),
        ('[registry]\nlocation = "x"\nblocked = true\n', "registry is not a list"),
        ('[[registry]]\nlocation = "x"\npull-from-mirror = "all"\n', "pull-from-mirror of x is not that of a mirror"),
        (
            '[[registry]]\nlocation = "x"\n[[registry.mirror]]\nlocation = "y"\npull-from-mirror = "tags"\n',
            "pull-from-mirror of y is tags",
        ),
        (
            """
            [[registry]]
            location = "x"
            mirror-by-digest-only = true
            [[registry.mirror]]
            location = "y"
            pull-from-mirror = "all"
            """,
            "exclude each other",
        ),
        (
            '[[registry]]\nlocation = "x"\n[[registry]]\nprefix = "y"\nlocation = "x"\nblocked = true\n',
            "x is defined with two values of blocked",
        ),
        ('[registries.block]\nregistries = "example.org"\n', "registries is not a list"),
        ('[registries.block]\nregistries = ["a"]\n[[registry]]\nlocation = "b"\n', "it mixes format 1"),
    ],
)
def test_a_damaged_configuration_is_an_error(tmp_path: Path, configuration: str, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)) as caught:
        places(configuration, "example.org/a", tmp_path)
    assert "\n" not in str(caught.value)


_LINES = (
    "[aliases]", '"a" = "b"', '"a" = "c"', '  "x/y" = "docker.io/x.y:1-2"', "# a comment", "", " \t", "\x0b", "#\x00",
    "\r", "[[registry]]", 'location = "example.org"', "blocked = true", '"registry" = "b"', "a = 1", "'a' = 'b'",
    '"a" = "b" # c', '"\\u0061" = "b"', '"a" = """', "[aliases.a]", " [aliases] ", "\x0b[aliases]", '"é" = "ü"',
)  # fmt: skip


@given(text=lists(sampled_from(_LINES), max_size=6).map("\n".join))
@example(text='[aliases]\n"a" = "b"\n"a" = "c"')
@example(text='[aliases]\n[[registry]]\nlocation = "example.org"\nblocked = true')
def test_only_what_has_no_settings_is_passed_over(text: str) -> None:
    if registries_conf._is_without_settings(text):
        assert set(tomllib.loads(text)) <= {"aliases"}


@pytest.mark.parametrize(
    "text", ["", "# a\n\n  # b\n", '[aliases]\n  # a\n  "a" = "docker.io/library/a"\n"b/c-d" = "e"']
)
def test_aliases_and_comments_are_passed_over(text: str) -> None:
    assert registries_conf._is_without_settings(text)


def test_format_1_in_the_folder_is_an_error(tmp_path: Path) -> None:
    folder = tmp_path / ".config" / "containers" / "registries.conf.d"
    folder.mkdir(parents=True)
    (folder / "1.conf").write_text('[registries.block]\nregistries = ["example.org"]\n')
    with pytest.raises(UsageError, match=r"1\.conf: format 1 .* is not possible"):
        places("", "example.org/a", tmp_path)


@pytest.mark.parametrize(
    ("host", "plain"),
    [
        ("localhost", True), ("localhost:5000", True), ("127.0.0.1:80", True), ("127.1.2.3", True),
        ("[::1]:5000", True),
        ("localhost.example", False), ("127.0.0.1.example", False),
        ("127.example", False), ("128.0.0.1", False), ("example.org:127", False), ("docker.io", False),
    ],
)  # fmt: skip
def test_only_this_machine_may_speak_plain_http(host: str, *, plain: bool) -> None:
    assert Place(host, "a").may_be_plain is plain
    assert Place(host, "a", insecure=True).may_be_plain
