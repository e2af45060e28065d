"""Hints for the user when an engine does not answer or does not have the image."""

import errno
import os

from fusefs.sources.engine.endpoint import Endpoint
from fusefs.text import printable

_PODMAN = "unix:///run/podman/podman.sock"
_MAY_NOT = "become root, or join the group docker"
_GONE = (errno.ENOENT, errno.ECONNREFUSED)


def when_unreachable(endpoint: Endpoint, cause: BaseException) -> str:
    """Return a hint for *cause*, which kept imgfs from the engine at *endpoint*."""
    podman = is_podman(endpoint.shown)
    if isinstance(cause, PermissionError):
        return f"become root, or name your own with --host {_users_podman()}" if podman else _MAY_NOT
    if podman and isinstance(cause, OSError) and cause.errno in _GONE:
        user = "--user " if endpoint.shown.startswith("unix:///run/user/") else ""
        return f"start it with systemctl {user}start podman.socket, or name another engine with --host"
    for other in (_PODMAN, _users_podman()):
        if endpoint.host.startswith("unix://") and os.path.exists(other.removeprefix("unix://")):
            return f"start docker, or take podman's images with --host {other}"
    return "start docker, or name another engine with --host or --context"


def when_missing(shown: str, name: str) -> str:
    """Return a hint for an engine, *shown* in messages, that does not have the image *name*."""
    program = "podman" if is_podman(shown) else "docker"
    if os.path.exists(name):
        return f"./{printable(name)} is the file of that name"
    if name.startswith("sha256:"):
        return f"{program} image ls lists what it has"
    return f"{program} pull {printable(name)} fetches it, docker://{printable(name)} needs no pull"


def is_podman(shown: str) -> bool:
    """Return whether the engine is podman, as far as its address tells."""
    return shown.startswith("unix://") and "podman" in shown


def _users_podman() -> str:
    return f"unix:///run/user/{os.geteuid()}/podman/podman.sock"
