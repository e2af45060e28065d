"""The credentials of a registry, from all files and helpers that may have them."""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fusefs.errors import UsageError
from fusefs.sources.registry.credentials import Credentials, find_credentials
from tests.conftest import TakeWarnings


def basic(user: str, password: str = "secret") -> dict[str, str]:
    """Return an entry with a user."""
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


class Files:
    """A home with files of credentials."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {"HOME": str(folder), "XDG_RUNTIME_DIR": str(folder / "run")}

    def write(self, name: str, **document: Any) -> str:
        """Write a file and return its path."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document))
        return str(path)

    def find(self, registry: str = "example.org", repository: str = "a/b", authfile: str | None = None) -> str | None:
        """Return the user of the credentials, None without any."""
        found = find_credentials(registry, repository, authfile, self.environment)
        return None if found is None else found.user


class Helpers:
    """Credential helpers, and what they were asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def write(self, name: str, known: Mapping[str, str]) -> None:
        """Write a helper that knows the users *known* by their servers."""
        cases = "".join(
            f"""'{server}') echo '{{"Username": "{user}", "Secret": "s"}}' ;; """ for server, user in known.items()
        )
        program = self.folder / f"docker-credential-{name}"
        program.write_text(
            f"""#!/bin/sh
            read server; echo "$server" >>{self.folder}/asked
            case $server in {cases}*) echo 'credentials not found in native keychain'; exit 1;; esac
            """
        )
        program.chmod(0o755)

    def asked(self) -> list[str]:
        """Return the servers for which helpers were asked since the last call."""
        path = self.folder / "asked"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines


@pytest.fixture(name="helpers")
def helpers_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Helpers:
    """Give a folder of helpers in the path."""
    made = Helpers(tmp_path / "helpers")
    monkeypatch.setenv("PATH", f"{made.folder}:/usr/bin:/bin")
    return made


@pytest.fixture(name="files")
def files_fixture(tmp_path: Path) -> Files:
    """Give a home without any files."""
    return Files(tmp_path)


def auths(user: str, key: str = "example.org") -> Mapping[str, Any]:
    """Return a document with one entry."""
    return {"auths": {key: basic(user)}}


def test_the_first_file_with_credentials_counts(files: Files) -> None:
    assert files.find() is None
    (files.folder / ".dockercfg").write_text(json.dumps({"example.org": basic("oldest")}))
    assert files.find() == "oldest"
    files.write(".docker/config.json", **auths("docker"))
    assert files.find() == "docker"
    files.write(".config/containers/auth.json", **auths("of another registry", "example.com"))
    assert files.find() == "docker"
    files.write(".config/containers/auth.json", **auths("user's"))
    assert files.find() == "user's"
    files.write("run/containers/auth.json", **auths("session's"))
    assert files.find() == "session's"
    files.environment["DOCKER_AUTH_CONFIG"] = json.dumps(auths("inline"))
    assert files.find() == "inline"
    files.environment["REGISTRY_AUTH_FILE"] = files.write("named", **auths("named"))
    assert files.find() == "named"
    other = files.write("other", **auths("other", "example.com"))
    assert files.find(authfile=other) is None  # no other file is read
    assert files.find("example.com", authfile=other) == "other"


@pytest.mark.parametrize(
    ("repository", "user"), [("a/b", "of a/b"), ("a/b/c", "of a/b"), ("a/bc", "of a"), ("a", "of a"), ("x", "of all")]
)
def test_the_longest_path_counts(files: Files, repository: str, user: str) -> None:
    keys = {"example.org": "of all", "example.org/a": "of a", "example.org/a/b": "of a/b", "example.org:5000": "other"}
    path = files.write("file", auths={key: basic(name) for key, name in keys.items()})
    assert files.find(repository=repository, authfile=path) == user


HUB = ["https://index.docker.io/v1/", "docker.io", "index.docker.io", "registry-1.docker.io"]
"""The names of Docker Hub."""


@pytest.mark.parametrize("key", [*HUB, "https://registry-1.docker.io/v2/", "docker.io/library"])
def test_docker_hub_has_several_names(files: Files, key: str) -> None:
    path = files.write("file", **auths("me", key))
    assert files.find("docker.io", "library/nginx", path) == "me"
    assert files.find("example.org", authfile=path) is None
    if key != "docker.io/library":
        assert files.find("registry-1.docker.io", "library/nginx", path) == "me"


@pytest.mark.parametrize("known", HUB)
@pytest.mark.parametrize("key", HUB)
def test_a_helper_may_know_docker_hub_by_any_name(files: Files, helpers: Helpers, key: str, known: str) -> None:
    helpers.write("hub", {known: "me"})
    for document in ({"credHelpers": {key: "hub"}}, {"credsStore": "hub"}):
        assert files.find("docker.io", "library/nginx", files.write("file", **document)) == "me"
    asked = helpers.asked()
    assert asked[0] == key  # as the file has it
    assert sorted(set(asked)) == sorted(set(asked) & set(HUB))


def test_the_name_of_the_docker_command_comes_first_and_no_helper_is_asked_twice(
    files: Files, helpers: Helpers
) -> None:
    helpers.write("hub", {})
    assert files.find("docker.io", "library/nginx", files.write("file", credsStore="hub")) is None
    assert helpers.asked() == HUB


def test_keys_of_the_docker_command_are_urls(files: Files) -> None:
    path = files.write("file", **auths("me", "https://example.org/v2/"))
    assert files.find(authfile=path) == "me"


def test_keys_of_the_oldest_file_are_hosts_and_urls(files: Files) -> None:
    for key in ("example.org/v1/", "example.org/other", "https://example.org/v1/", "example.org"):
        (files.folder / ".dockercfg").write_text(json.dumps({key: basic("me")}))
        assert (files.find(), files.find("example.com")) == ("me", None)
    (files.folder / ".dockercfg").write_text(json.dumps({"index.docker.io/v1/": basic("hub")}))
    assert files.find("docker.io", "library/nginx") == "hub"
    both = {"example.org": basic("host"), "example.org/v1/": basic("url")}
    (files.folder / ".dockercfg").write_text(json.dumps(both))
    assert files.find() == "host"
    (files.folder / ".dockercfg").unlink()
    files.write(".docker/config.json", **auths("me", "example.org/v1/"))  # there, it is a repository
    assert files.find() is None


def test_each_form_of_an_entry_is_read(files: Files) -> None:
    def entry(**entry: str) -> Credentials | None:
        path = files.write("file", auths={"example.org": entry})
        return find_credentials("example.org", "a", path, files.environment)

    assert entry(**basic("me", "with:colon")) == Credentials("me", "with:colon")
    assert entry(username="me", password="p") == Credentials("me", "p")
    assert entry(identitytoken="t", **basic("0", "")) == Credentials("0", "", "t")
    assert entry(registrytoken="t") == Credentials(registry_token="t")
    assert entry() is None
    assert "p" not in repr(entry(username="me", password="p")).removeprefix("<credentials of me")


def test_a_helper_of_the_registry_comes_before_that_of_all(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, answer in (("one", {"Username": "one", "Secret": "s"}), ("all", {"Username": "<token>", "Secret": "t"})):
        program = files.folder / f"docker-credential-{name}"
        known = "example.org" if name == "one" else "https://index.docker.io/v1/"
        program.write_text(
            f"""#!/bin/sh
            read server
            if [ "$server" = "{known}" ]; then echo '{json.dumps(answer)}'
            else echo 'credentials not found in native keychain'; exit 1; fi
            """
        )
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{files.folder}:/usr/bin:/bin")
    path = files.write("file", credHelpers={"example.org": "one"}, credsStore="all", auths={"x.org": basic("entry")})
    assert files.find(authfile=path) == "one"
    assert files.find("x.org", authfile=path) == "entry"
    hub = find_credentials("docker.io", "library/nginx", path, files.environment)
    assert hub == Credentials(identity_token="t")
    assert files.find("y.org", authfile=path) is None


def test_a_helper_that_fails_is_not_quoted(files: Files, helpers: Helpers) -> None:
    helpers.write("x", {})
    (helpers.folder / "docker-credential-x").write_text("#!/bin/sh\necho 'no s3cret'; echo s3cret >&2; exit 3\n")
    hint = "'echo example.org | docker-credential-x get' shows why"
    with pytest.raises(UsageError, match=f"^docker-credential-x failed with status 3; {hint}$"):
        files.find(authfile=files.write("file", credsStore="x"))


def test_the_helper_of_a_registry_alone_counts_in_its_file(files: Files, helpers: Helpers) -> None:
    helpers.write("own", {})
    helpers.write("all", {"example.org": "all"})
    document = {"credHelpers": {"example.org": "own"}, "credsStore": "all", "auths": {"example.org": basic("entry")}}
    files.write("run/containers/auth.json", **document)
    assert files.find() is None
    files.write(".config/containers/auth.json", **auths("next file's"))
    assert files.find() == "next file's"
    files.write("run/containers/auth.json", **(document | {"credHelpers": {"example.org": ""}}))
    assert files.find() == "entry"


def test_the_helpers_of_registries_conf_are_asked_in_their_order(files: Files, helpers: Helpers) -> None:
    configuration = files.folder / ".config" / "containers" / "registries.conf"
    files.write(".config/containers/auth.json", **auths("file's"))
    named = files.write("named", **auths("named"))
    helpers.write("one", {"example.org": "one", "https://index.docker.io/v1/": "hub"})
    for order, user in (
        ('"one", "containers-auth.json"', "one"),
        ('"containers-auth.json", "one"', "file's"),
        ('"missing", "one"', "one"),
        ('"missing", "containers-auth.json"', "file's"),
        ("", "file's"),
    ):
        configuration.write_text(f"credential-helpers = [{order}]\n")
        assert files.find() == user
        assert files.find(authfile=named) == "named"
    configuration.write_text('credential-helpers = ["one"]\n')
    assert files.find("docker.io", "library/nginx") == "hub"
    assert files.find("example.com") is None
    configuration.write_text('credential-helpers = ["one", "missing"]\n')
    with pytest.raises(UsageError, match="cannot run docker-credential-missing"):
        files.find("example.com")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"credsStore": "missing"}, "cannot run docker-credential-missing: No such file"),
        ({"credsStore": "../x"}, "bad name of a credential helper: docker-credential-../x"),
        ({"auths": {"example.org": {"auth": "???"}}}, "auth of example.org is not base64"),
        ({"auths": {"example.org": {"registrytoken": "a\n"}}}, "registrytoken of example.org is not a token"),
    ],
)
def test_what_cannot_be_used_is_an_error(files: Files, document: dict[str, Any], message: str) -> None:
    path = files.write("file", **document)
    with pytest.raises(UsageError, match=message):
        files.find(authfile=path)


def test_line_breaks_in_base64_count_as_little_as_for_go(files: Files) -> None:
    encoded = basic("a user with a name of two lines")["auth"]
    files.write("file", auths={"example.org": {"auth": f"\n{encoded[:20]}\r\n{encoded[20:]}\n"}})
    assert files.find(authfile=str(files.folder / "file")) == "a user with a name of two lines"


def test_an_entry_without_a_colon_is_passed_over_with_one_warning(files: Files, take_warnings: TakeWarnings) -> None:
    path = files.write("run/containers/auth.json", auths={"example.org": {"auth": "YQ=="}})
    assert files.find() is None
    files.write(".docker/config.json", **auths("next"))
    assert files.find() == "next"
    assert take_warnings() == [f"{path}: auth of example.org is not USER:PASSWORD; it is ignored"]


def test_a_damaged_or_missing_file_is_an_error_that_quotes_nothing(files: Files) -> None:
    path = files.folder / "file"
    with pytest.raises(UsageError, match="it does not exist"):
        files.find(authfile=str(path))
    for text in ('{"auths": secret', "[]"):
        path.write_text(text)
        with pytest.raises(UsageError) as caught:
            files.find(authfile=str(path))
        assert "secret" not in str(caught.value)
