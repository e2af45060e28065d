"""The status of mounts."""

import threading

import pytest

from fusefs.mount.mountinfo import mounts
from fusefs.mount.status import State, query_status


def test_a_mount_answers_too_where_no_thread_can_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    asked = [mount for mount in mounts() if mount.mountpoint in ("/proc", "/")][-2:]
    assert asked
    assert {status.state for status in query_status(asked)} <= {State.MOUNTED, State.COVERED}
