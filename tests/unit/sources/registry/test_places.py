"""Where the image of a reference is asked for: registries.conf."""

from pathlib import Path

import pytest

from fusefs.errors import ImgfsError
from fusefs.oci.reference import registry_reference
from fusefs.sources.registry.places import Place, find_places

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
        ("example.org:5000/team/app", Place("example.org:5000", "team/app")),
        ("a.wild.example/x", Place("a.wild.example", "x", insecure=True)),
        ("a.b.wild.example/x/y", Place("a.b.wild.example", "x/y", insecure=True)),
        ("wild.example/x", Place("wild.example", "x")),
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
        prefix = "docker.io"
        location = "cache.example:8080/hub"
    """
    assert places(configuration, name, tmp_path) == [place]


def test_mirrors_come_first_if_they_serve_this_kind_of_reference(tmp_path: Path) -> None:
    configuration = """
        [[registry]]
        prefix = "example.org"
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
        ('[[registry]]\nprefix = "example.org/a"\nlocation = "host"\n', "host is not the location of a repository"),
    ],
)
def test_a_damaged_configuration_is_an_error(tmp_path: Path, configuration: str, message: str) -> None:
    with pytest.raises(ImgfsError, match=message):
        places(configuration, "example.org/a", tmp_path)


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
