"""How a FUSE mount begins and ends, without a mount."""

import signal
from collections.abc import Sequence
from typing import cast

import pyfuse3
import pytest
import trio

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


@pytest.mark.parametrize("raised", [ConnectionAbortedError, ConnectionResetError])
def test_a_request_that_the_kernel_takes_back_is_the_end_and_no_fault(
    monkeypatch: pytest.MonkeyPatch, raised: type[OSError]
) -> None:
    async def read(*_: int) -> None:
        async with trio.open_nursery():
            raise raised("fuse_session_receive_buf failed")

    monkeypatch.setattr(pyfuse3, "main", read)
    try:
        trio.run(session._answer_requests, 1, 2)
    except* ConnectionResetError:
        assert raised is not ConnectionAbortedError
    else:
        assert raised is ConnectionAbortedError


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
