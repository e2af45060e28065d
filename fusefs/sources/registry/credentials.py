"""The credentials of a registry: containers-auth.json(5), the docker command's files and credential helpers."""

import base64
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from fusefs.errors import UsageError
from fusefs.home import home
from fusefs.log import logger
from fusefs.oci.reference import DOCKER_HUB
from fusefs.pattern import pattern
from fusefs.sources.registry.registries_conf import AUTH_FILES, configuration_files, read_configuration
from fusefs.text import printable

log = logger(__name__)

_HUB_NAMES = ("https://index.docker.io/v1/", DOCKER_HUB, "index.docker.io", "registry-1.docker.io")
"""The names of Docker Hub: that of the docker command's files first, then that of containers/image."""
_DOCKERCFG = ".dockercfg"
_HELPER = pattern(r"[A-Za-z0-9][A-Za-z0-9._-]*")
HELPER_TIMEOUT = 30.0
"""Seconds."""
_MAX_FILE = 1 << 20
_LINE_BREAKS = {ord("\r"): None, ord("\n"): None}
_IDENTITY_TOKEN = "<token>"  # noqa: S105 - the user name that helpers state beside an identity token


class Credentials(NamedTuple):
    """A user's password, or a token."""

    user: str = ""
    password: str = ""
    identity_token: str = ""
    """Exchanged for access tokens (OAuth's refresh token)."""
    registry_token: str = ""
    """An access token."""

    def __repr__(self) -> str:
        """Show no secret."""
        return f"<credentials of {self.user or 'a token'}>"

    @property
    def basic(self) -> str:
        """The value of the header Authorization with user and password."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


def find_credentials(
    registry: str,
    repository: str,
    authfile: str | None,
    environment: Mapping[str, str],
    seconds: float = HELPER_TIMEOUT,
) -> Credentials | None:
    """Return the credentials for *repository* of *registry*, None without any.

    Helpers may take so many *seconds* together.

    With *authfile* or $REGISTRY_AUTH_FILE that file alone counts, otherwise the first of the helpers that
    registries.conf lists; without a list, of the files.  Raises UsageError for a file or helper that is named but
    cannot be used, unless a later helper of the list has credentials.
    """
    deadline = time.monotonic() + seconds
    if named := authfile or environment.get("REGISTRY_AUTH_FILE"):
        return _from_files(named, registry, repository, environment, deadline)
    failure = None
    for helper in read_configuration(environment).helpers:
        try:
            if helper == AUTH_FILES:
                found = _from_files(None, registry, repository, environment, deadline)
            else:
                found = _from_helper(helper, _names(registry), deadline)
        except UsageError as error:
            failure = failure or error
            continue
        if found is not None:
            return found
    if failure is not None:
        raise failure
    return None


def _from_files(
    named: str | None, registry: str, repository: str, environment: Mapping[str, str], deadline: float
) -> Credentials | None:
    for document, where in _documents(named, environment):
        found = _in_document(document, where, registry, repository, deadline)
        if found is not None:
            return found
    return None


def _documents(named: str | None, environment: Mapping[str, str]) -> Iterator[tuple[Mapping[str, Any], str]]:
    if named:
        document = _file(Path(named))
        if document is None:
            raise UsageError(f"cannot read {printable(named)}: it does not exist")
        yield document, named
        return
    if inline := environment.get("DOCKER_AUTH_CONFIG"):
        yield _parsed(inline, "DOCKER_AUTH_CONFIG"), "DOCKER_AUTH_CONFIG"
    for path in _files(environment):
        document = _file(path)
        if document is not None:
            yield _of_dockercfg(document) if path.name == _DOCKERCFG else document, str(path)


def _of_dockercfg(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what the oldest file has in the form of the newer ones: there, a key with a path is a URL in any case."""
    is_url = {key: "/" in key and "://" not in key for key in document}
    return {"auths": {f"https://{key}" if is_url[key] else key: entry for key, entry in document.items()}}


def credential_files(authfile: str | None, environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the files and directories that `find_credentials` may read, whether they exist or not."""
    named = authfile or environment.get("REGISTRY_AUTH_FILE")
    return (named,) if named else (*map(str, _files(environment)), *configuration_files(environment))


def _files(environment: Mapping[str, str]) -> Iterator[Path]:
    folder = Path(home(environment))
    runtime = environment.get("XDG_RUNTIME_DIR")
    yield Path(f"{runtime}/containers" if runtime else f"/run/containers/{os.geteuid()}", "auth.json")
    yield Path(environment.get("XDG_CONFIG_HOME") or folder / ".config", "containers", "auth.json")
    yield Path(environment.get("DOCKER_CONFIG") or folder / ".docker", "config.json")
    yield folder / _DOCKERCFG


def _file(path: Path) -> Mapping[str, Any] | None:
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_FILE)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UsageError(f"cannot read the credentials in {path}: {error.strerror}") from None
    return _parsed(text, str(path))


def _parsed(text: str | bytes, where: str) -> Mapping[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):  # its message could quote a secret
        raise UsageError(f"{printable(where)} is not JSON") from None
    if not isinstance(document, dict):
        raise UsageError(f"{printable(where)} is not a JSON object")
    return document


def _in_document(
    document: Mapping[str, Any], where: str, registry: str, repository: str, deadline: float
) -> Credentials | None:
    """Return the credentials in *document*: from a helper for this registry, or the helper for all, or the entries.

    The helper for a registry is the only one that counts; an empty name means that the entries count alone.
    """
    names = _names(registry)
    listed = document.get("credHelpers")
    helpers = listed if isinstance(listed, dict) else {}
    key = next((name for name in names if isinstance(helpers.get(name), str)), None)
    if key is not None and helpers[key]:
        return _from_helper(helpers[key], dict.fromkeys((key, *names)), deadline)
    store = document.get("credsStore")
    if key is None and isinstance(store, str) and store:
        found = _from_helper(store, names, deadline)
        if found is not None:
            return found
    entries = document.get("auths")
    if not isinstance(entries, dict):
        return None
    by_name = {_normalized(key): entry for key, entry in reversed(entries.items()) if isinstance(entry, dict)}
    by_name |= {key: entry for key, entry in entries.items() if isinstance(entry, dict)}
    for key in _keys(registry, repository):
        if key in by_name and (found := _entry(by_name[key], where, key)):
            return found
    return None


def _keys(registry: str, repository: str) -> Iterator[str]:
    """Yield the keys of the repository, the longest first."""
    parts = [registry, *repository.split("/")]
    for count in range(len(parts), 0, -1):
        yield "/".join(parts[:count])
    yield from _names(registry)


def _names(registry: str) -> tuple[str, ...]:
    """Return the names of *registry*: Docker Hub has several."""
    return _HUB_NAMES if registry in _HUB_NAMES else (registry,)


def _normalized(key: str) -> str:
    """Return the host of a key as the docker command writes it: ``https://host/v1/``."""
    scheme, separator, rest = key.partition("://")
    return rest.partition("/")[0] if separator and scheme in ("http", "https") else key


def _entry(entry: Mapping[str, Any], where: str, key: str) -> Credentials | None:
    """Return the credentials of an *entry*, None if it has none.

    Base64 as Go's encoding/base64 reads it, and an entry without a user, as for containers/image, has none.
    """
    texts = {name: value for name, value in entry.items() if isinstance(value, str)}
    user, password = texts.get("username", ""), texts.get("password", "")
    shown = f"{printable(where)}: auth of {printable(key)}"
    if texts.get("auth"):
        try:
            decoded = base64.b64decode(texts["auth"].translate(_LINE_BREAKS), validate=True).decode().rstrip("\0")
        except ValueError:
            raise UsageError(f"{shown} is not base64") from None
        user, colon, password = decoded.partition(":")
        if not colon:
            _warn_once(f"{shown} is not USER:PASSWORD; it is ignored")
            return None
    token = texts.get("registrytoken", "")
    if token and not (token.isascii() and token.isprintable()):
        raise UsageError(f"{printable(where)}: registrytoken of {printable(key)} is not a token")
    found = Credentials(user, password, texts.get("identitytoken", ""), token)
    return None if found == Credentials() else found


@lru_cache(maxsize=16)
def _warn_once(text: str) -> None:
    """Log a warning; credentials are read again with each token."""
    log.warning("%s", text)


def _from_helper(name: str, keys: Iterable[str], deadline: float) -> Credentials | None:
    """Return the credentials that the helper *name* has for the first of *keys*, None if it has none."""
    answers = (_answer_of_helper(name, key, deadline) for key in keys)
    return next((found for found in answers if found is not None), None)


def _answer_of_helper(name: str, registry: str, deadline: float) -> Credentials | None:
    """Return the credentials that ``docker-credential-NAME get`` states, None if it has none."""
    program = f"docker-credential-{name}"
    if not _HELPER.fullmatch(name):
        raise UsageError(f"bad name of a credential helper: {printable(program)}")
    from fusefs.sources.registry.credential_helper import ask_helper  # noqa: PLC0415 - most credentials are in files

    status, output = ask_helper(program, registry, max(0.0, deadline - time.monotonic()))
    if status:
        if b"credentials not found" in output or b"no credentials" in output:
            return None
        asked = printable(registry)  # what it printed may contain a secret
        raise UsageError(f"{program} failed with status {status}; 'echo {asked} | {program} get' shows why")
    answer = _parsed(output, program)
    user, secret = answer.get("Username"), answer.get("Secret")
    if not isinstance(user, str) or not isinstance(secret, str):
        raise UsageError(f"{program} states neither Username nor Secret")
    return Credentials(identity_token=secret) if user == _IDENTITY_TOKEN else Credentials(user, secret)
