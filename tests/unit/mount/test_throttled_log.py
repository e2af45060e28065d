"""Log messages that are throttled, and their count."""

import errno
import logging

import pytest

from fusefs.mount.throttled_log import ThrottledLog


def test_an_error_that_comes_again_is_told_once_in_ten_seconds_with_their_number(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = 0.0
    throttled = ThrottledLog(logging.getLogger("tests"), lambda: now)
    for tenth in range(201):
        now = tenth / 10
        throttled.error("read", OSError(errno.EIO, f"broken at {tenth}"))
    assert caplog.messages == [
        "read: [Errno 5] broken at 0",
        "read: [Errno 5] broken at 100 (and 99 more before)",
        "read: [Errno 5] broken at 200 (and 99 more before)",
    ]


def test_another_error_or_another_request_is_told_at_once(caplog: pytest.LogCaptureFixture) -> None:
    throttled = ThrottledLog(logging.getLogger("tests"), lambda: 0.0)
    for what, number in (("read", 5), ("read", 5), ("read", 28), ("open", 5), ("open", 5)):
        throttled.error(what, OSError(number, "x"))
    assert caplog.messages == ["read: [Errno 5] x", "read: [Errno 28] x", "open: [Errno 5] x"]


def test_a_message_is_told_as_seldom(caplog: pytest.LogCaptureFixture) -> None:
    moments = iter((0.0, 0.0, 9.9, 9.9, 10.0, 10.0))
    throttled = ThrottledLog(logging.getLogger("tests"), lambda: next(moments))
    for _ in range(3):
        throttled.message("one")
        throttled.message("other")
    assert caplog.messages == ["one", "other", "one (and 1 more before)", "other (and 1 more before)"]


def test_a_bug_is_told_once_in_ten_seconds_with_a_traceback_for_each_place_in_the_code(
    caplog: pytest.LogCaptureFixture,
) -> None:
    throttled = ThrottledLog(logging.getLogger("tests"), lambda: 0.0)
    for number in range(100):
        for value in (0, "x"):
            try:
                1 / value  # type: ignore[operator]
            except (ZeroDivisionError, TypeError) as error:
                throttled.bug("read", error)
        try:
            raise ValueError(number)
        except ValueError as error:
            throttled.bug("read", error)
    kinds = [record.exc_info and record.exc_info[0] for record in caplog.records]
    assert kinds == [ZeroDivisionError, TypeError, ValueError]
    assert caplog.messages == ["read: a bug"] * 3
