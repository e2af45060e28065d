"""Work in a child process that can be abandoned."""

import os

from fusefs.mount.abandonable import ChildReport, answers
from fusefs.mount.status import _NAMES


def test_the_longest_attributes_of_a_hostile_mount_are_an_answer() -> None:
    attributes = {name: os.fsdecode(b"\xff" * limit) for name, limit in _NAMES.items()}
    value = [(1 << 31) - 1, "mounted", attributes]
    (answer,) = answers(lambda say: say(ChildReport(value)), 5)
    assert answer.value == value
