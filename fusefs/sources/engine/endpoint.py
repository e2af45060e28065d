"""The address of the engine: a host and TLS files.

Follows the `docker` command in ``--host``, ``--context``, the environment and contexts (github.com/docker/cli,
cli/context/store).  The SDK's own lookup is not used: for an unknown context it uses the default socket, it reads
``./contexts``, and it can fall back to plain HTTP.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from fusefs.errors import UsageError
from fusefs.home import home
from fusefs.sources.tls import Tls
from fusefs.text import printable, without_password

if TYPE_CHECKING:  # a socket needs no files
    from pathlib import Path

_DEFAULT_HOST = "unix:///var/run/docker.sock"
_DEFAULT_CONTEXT = "default"


class Endpoint(NamedTuple):
    """An engine's address, as ``unix:///path``, ``tcp://host:port`` or ``ssh://user@host``."""

    host: str
    tls: Tls | None

    @property
    def shown(self) -> str:
        """The host in messages, without a password."""
        return printable(without_password(self.host))


def find_endpoint(host: str | None, context: str | None, environment: Mapping[str, str]) -> Endpoint:
    """Return the engine that options and *environment* name.

    The first that is set counts: *host* or *context*, DOCKER_HOST, DOCKER_CONTEXT, the current context, the default
    socket.  Raises UsageError if both options are given, or if a context or TLS files are missing or damaged.
    """
    if host is not None and context is not None:
        raise UsageError("--host and --context exclude each other")
    folder = _docker_config(environment)
    if host is None and context is None:
        host = environment.get("DOCKER_HOST") or None
        if host is None:
            context = environment.get("DOCKER_CONTEXT") or _current_context(folder)
    if host is None and context == _DEFAULT_CONTEXT:
        host = environment.get("DOCKER_HOST") or _DEFAULT_HOST
    if host is not None:
        return _checked(Endpoint(host, _tls_of_environment(folder, environment)))
    assert context is not None
    return _checked(_context(folder, context))


def _docker_config(environment: Mapping[str, str]) -> str:
    return environment.get("DOCKER_CONFIG") or os.path.join(home(environment), ".docker")


def _current_context(folder: str) -> str:
    path = os.path.join(folder, "config.json")
    try:
        text = _bytes_of(path)
    except (FileNotFoundError, NotADirectoryError):
        return _DEFAULT_CONTEXT
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    current = _object(text, path).get("currentContext")
    return current if isinstance(current, str) and current else _DEFAULT_CONTEXT


def _context(docker_config: str, name: str) -> Endpoint:
    from pathlib import Path  # noqa: PLC0415 - the default socket needs no files

    folder = Path(docker_config)
    key = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()
    path = folder / "contexts" / "meta" / key / "meta.json"
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(
            f"no context '{printable(name)}' in {folder / 'contexts'}; docker context ls lists them"
        ) from None
    except OSError as error:
        raise UsageError(f"cannot read the context '{printable(name)}': {path}: {error.strerror}") from None
    match _object(text, path).get("Endpoints"):
        case {"docker": {"Host": str(host), **others}} if host:
            skip_verify = others.get("SkipTLSVerify") is True
        case _:
            raise UsageError(f"the context '{printable(name)}' has no docker host: {path}")
    files = folder / "contexts" / "tls" / key / "docker"
    try:
        present = {path.name for path in files.iterdir()}
    except (FileNotFoundError, NotADirectoryError):
        present = set()
    except OSError as error:
        raise UsageError(
            f"cannot read the TLS files of the context '{printable(name)}': {files}: {error.strerror}"
        ) from None
    if not present and not skip_verify:
        return Endpoint(host, None)
    return Endpoint(host, _tls(files, present, verify=not skip_verify))


def _tls_of_environment(folder: str, environment: Mapping[str, str]) -> Tls | None:
    """Return the TLS settings of DOCKER_TLS, DOCKER_TLS_VERIFY and DOCKER_CERT_PATH."""
    verify = bool(environment.get("DOCKER_TLS_VERIFY"))
    certificates = environment.get("DOCKER_CERT_PATH")
    if not (verify or certificates or environment.get("DOCKER_TLS")):
        return None
    from pathlib import Path  # noqa: PLC0415 - most engines have no TLS

    files = Path(certificates or folder)
    present = {name for name in ("ca.pem", "cert.pem", "key.pem") if os.path.isfile(files / name)}
    if certificates and not present:
        raise UsageError(f"DOCKER_CERT_PATH names no folder with ca.pem, cert.pem or key.pem: {files}")
    return _tls(files, present, verify=verify)


def _tls(files: "Path", present: set[str], *, verify: bool) -> Tls:
    pair = {"cert.pem", "key.pem"} & present
    if len(pair) == 1:
        missing = ({"cert.pem", "key.pem"} - pair).pop()
        raise UsageError(f"TLS needs both cert.pem and key.pem: {files / missing} is missing")
    return Tls(
        ca=files / "ca.pem" if "ca.pem" in present else None,
        client=(files / "cert.pem", files / "key.pem") if pair else None,
        verify=verify,
    )


def _checked(endpoint: Endpoint) -> Endpoint:
    """Return *endpoint* as the SDK expects it; UsageError if it is malformed."""
    if without_password(endpoint.host) != endpoint.host:
        raise UsageError(
            f"bad engine host '{endpoint.shown}': imgfs sends no password, and the list of mounts would show it; "
            "use TLS files or ssh keys"
        )
    scheme, separator, rest = endpoint.host.partition("://")
    if not separator:  # for example, docker -H localhost:2375
        scheme, rest = "tcp", endpoint.host
    if scheme not in ("unix", "tcp", "http", "https", "ssh") or not rest:
        raise UsageError(
            f"bad engine host '{endpoint.shown}': expected unix:///path, tcp://host:port or ssh://user@host"
        )
    if scheme in ("tcp", "http", "https") and not _has_port(rest):
        raise UsageError(f"bad engine host '{endpoint.shown}': it has no valid port")
    if scheme == "unix" and not rest.startswith("/"):
        raise UsageError(
            f"bad engine host '{endpoint.shown}': the socket's path must be absolute, as in unix:///run/docker.sock"
        )
    if scheme == "http" and endpoint.tls is not None:
        raise UsageError(
            f"bad engine host '{endpoint.shown}': it has TLS files, but http:// is not encrypted; use tcp://"
        )
    return Endpoint(f"{scheme}://{rest}", None if scheme in ("unix", "ssh") else endpoint.tls)


def _has_port(address: str) -> bool:
    """Return whether *address* is a host, with a valid port or without one."""
    from urllib.parse import urlsplit  # noqa: PLC0415 - a socket has no port

    try:
        parts = urlsplit(f"//{address}")
        return bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def _bytes_of(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _object(text: bytes, path: "Path | str") -> dict[str, object]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not JSON: {printable(str(error))}") from None
    if not isinstance(document, dict):
        raise UsageError(f"{path} is not a JSON object")
    return document
