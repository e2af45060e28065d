"""Signals that arrive while the FUSE mount ends."""

import signal
from collections.abc import Sequence
from typing import cast

import pytest

from fusefs.mount import session
from fusefs.mount.mountpoint import Mountpoint
from fusefs.mount.session import MountOptions, serve
from fusefs.mount.unmounting import stop_signals
from fusefs.tree.node import Directory


class _Ended:
    """A succession that keeps the signals it is given at the end."""

    def __init__(self) -> None:
        self.signals: list[int] | None = None

    def finish(self, signals: Sequence[int]) -> None:
        self.signals = list(signals)


@pytest.mark.parametrize("number", stop_signals())
def test_a_signal_that_arrives_as_the_event_loop_ends_is_known_at_the_end(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    ended = _Ended()
    before = signal.getsignal(number)

    async def end(*_: object) -> _Ended:
        signal.raise_signal(number)
        return ended

    monkeypatch.setattr(session, "_serve_by_fuse", end)
    serve(cast(Directory, None), cast(Mountpoint, None), cast(MountOptions, None), lambda: None)
    assert ended.signals == [number]
    assert signal.getsignal(number) is before


@pytest.mark.parametrize(
    "said",
    [
        "fuse: failed to exec fusermount3: Permission denied\n",
        (
            "On calling fusermount posix_spawn failed: Permission denied\n"
            "posix_spawn(p)() for fusermount3 failed: Permission denied"
            "On calling fusermount posix_spawn failed: Permission denied\n"
            "posix_spawn(p)() for fusermount3 failed: Permission denied\n"
        ),
    ],
    ids=["libfuse 3.14", "libfuse 3.17"],
)
def test_without_fusermount_every_libfuse_gets_the_same_line(said: str) -> None:
    assert session._mount_error("/mnt", said, RuntimeError("fuse_session_mount failed")) == (
        "cannot mount on /mnt: failed to exec fusermount3: Permission denied; install fuse3"
    )
