"""The status of mounts."""

import threading
import time

import pytest

from fusefs.mount import status
from fusefs.mount.mountinfo import Mount, mounts
from fusefs.mount.status import State, query_status


def test_one_that_is_stuck_says_nothing_about_others_where_no_thread_can_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    asked = [mount for mount in mounts() if mount.mountpoint == "/proc"][-1:] * 3
    stuck = asked[0]._replace(id=-1)

    def state_of(mount: Mount) -> tuple[State, dict[str, str]]:
        if mount.id == -1:
            time.sleep(60)
        return State.MOUNTED, {}

    monkeypatch.setattr(threading.Thread, "start", start)
    monkeypatch.setattr(status, "state_of", state_of)
    found = query_status([stuck, *asked[1:]], 0.3)
    assert [each.state for each in found] == [State.STUCK, State.MOUNTED, State.MOUNTED]
