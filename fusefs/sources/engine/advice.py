"""Hints for the user when an engine does not answer or does not have the image."""

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from fusefs.errors import EngineError, Unavailable
from fusefs.oci.reference import is_image_id, tagged
from fusefs.pattern import pattern
from fusefs.sources.engine.endpoint import Endpoint
from fusefs.text import listing, printable, quoted

_PODMAN = "unix:///run/podman/podman.sock"
_MAY_NOT = "become root, or join the group docker"
_CLOSE = 0.8
"""Similarity of names, 0 to 1 as difflib counts it."""
_GONE = (errno.ENOENT, errno.ECONNREFUSED)
_ID = pattern(r"sha256:.*|[0-9a-f]{6,64}")
"""What is rather the ID of an image, or its beginning, than a name."""


class Unreachable(EngineError):
    """No engine answers at the address."""


class NotPulled(Unavailable):
    """The engine has no such image, and a registry may have it."""

    def __init__(self, why: str, how: str, name: str) -> None:
        """*how*: to get it into the engine; *name*: that in the registry."""
        super().__init__(f"{why}; {how}, docker://{printable(name)} needs no pull")
        self._why, self._how = why, how

    def named(self, name: str) -> "NotPulled":
        """Return the error with another *name* in the registry."""
        return NotPulled(self._why, self._how, name)


@contextmanager
def advising(endpoint: Endpoint, name: str) -> Iterator[None]:
    """Add a hint to an EngineError of the block, which asks the engine at *endpoint* for the image *name*."""
    try:
        yield
    except EngineError as error:
        if why := when_containerd(endpoint.host):
            raise EngineError(f"cannot use {endpoint.shown}: {why}") from None
        if hint := when_path(name):
            raise EngineError(f"{error}; or {hint}") from None
        if isinstance(error, Unreachable) and not (_ID.fullmatch(name) or name.startswith("localhost/")):
            raise EngineError(f"{error}; docker://{printable(name)} asks the registry, without an engine") from None
        raise


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


def when_missing(why: str, shown: str, name: str, names: Sequence[str] = ()) -> Unavailable:
    """Return the error *why* with a hint: an engine, *shown* in messages, has the images *names*, but not *name*."""
    program = "podman" if is_podman(shown) else "docker"
    if hint := when_path(name):
        return Unavailable(f"{why}; {hint}")
    if is_image_id(name):
        return Unavailable(f"{why}; {program} image ls lists what it has")
    if similar := _similar(name, names):
        listed = listing([*map(printable, similar)], ", ")
        return Unavailable(f"{why}; there {'is' if len(similar) == 1 else 'are'} {listed}")
    return NotPulled(why, f"{program} pull {quoted(name)} fetches it", name)


def when_path(name: str) -> str:
    """Return a hint if *name*, which reads as the name of an image, is that of a file or directory; empty otherwise."""
    parts = name.split(":")
    for count in range(len(parts), 0, -1):
        path = ":".join(parts[:count])
        if path and not path.startswith("/") and os.path.exists(path):
            kind = "directory" if os.path.isdir(path) else "file"
            return f"write {quoted(f'./{name}')} for the {kind} of that name"
    return ""


def when_containerd(host: str) -> str:
    """Return why *host*, an address that speaks no Docker API, does not; empty unless it is containerd's socket."""
    if not os.path.basename(host).startswith("containerd"):
        return ""
    return (
        "that is containerd's own socket, which has no Docker API; save the image with "
        "nerdctl save -o image.tar NAME, or ctr images export image.tar NAME, and give ./image.tar"
    )


def _similar(name: str, names: Sequence[str]) -> list[str]:
    """Return those of *names* that are the same repository with another tag, or spelled almost as *name*."""
    repositories = {tagged(full).rpartition(":")[0] for full in (name, f"localhost/{name}")}  # as podman looks
    if same := [known for known in names if tagged(known).rpartition(":")[0] in repositories]:
        return same
    import difflib  # noqa: PLC0415 - only mistakes need it

    close = difflib.get_close_matches(_bare(name), {_bare(known) for known in names}, 3, _CLOSE)
    return [known for known in names if _bare(known) in close]


def _bare(name: str) -> str:
    """Return *name* without its tag."""
    head, slash, last = name.rpartition("/")
    return head + slash + last.partition(":")[0]


def is_podman(shown: str) -> bool:
    """Return whether the engine is podman, as far as its address tells."""
    return shown.startswith("unix://") and "podman" in shown


def _users_podman() -> str:
    return f"unix:///run/user/{os.geteuid()}/podman/podman.sock"
