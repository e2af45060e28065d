"""Errors of wrong or denied bytes, which readers get again for a moment."""

import time

import pytest

from fusefs.content import patience
from fusefs.content.pieces import FetchFailed
from fusefs.content.recent import RecentErrors
from fusefs.errors import BlobError, DigestMismatch, ImgfsError, InvalidImage, NoSpace, RegistryError, Unavailable


@pytest.mark.parametrize("kind", [DigestMismatch, InvalidImage, BlobError, Unavailable])
def test_an_error_of_the_bytes_is_raised_again_for_two_seconds(
    monkeypatch: pytest.MonkeyPatch, kind: type[ImgfsError]
) -> None:
    now = time.monotonic()
    monkeypatch.setattr("fusefs.content.recent.time.monotonic", lambda: now)
    errors = RecentErrors()
    errors.check()
    errors.add(FetchFailed(kind("wrong")))
    for _ in range(2):
        with pytest.raises(FetchFailed, match="wrong") as caught:
            errors.check()
        assert caught.value.error.__traceback__ is None
    monkeypatch.setattr("fusefs.content.recent.time.monotonic", lambda: now + 1.9)
    with pytest.raises(FetchFailed):  # and raising it does not make it last longer
        errors.check()
    monkeypatch.setattr("fusefs.content.recent.time.monotonic", lambda: now + 2.0)
    errors.check()


@pytest.mark.parametrize("kind", [RegistryError, NoSpace])
def test_an_error_of_a_host_or_of_this_machine_is_not(kind: type[ImgfsError]) -> None:
    errors = RecentErrors()
    errors.add(FetchFailed(kind("gone")))
    errors.check()


def test_an_error_from_memory_is_not_remembered_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    monkeypatch.setattr("fusefs.content.recent.time.monotonic", lambda: now)
    errors, others = RecentErrors(), RecentErrors()
    errors.add(FetchFailed(DigestMismatch("wrong")))
    monkeypatch.setattr("fusefs.content.recent.time.monotonic", lambda: now + 1.9)
    with pytest.raises(FetchFailed) as caught:
        errors.check()
    others.add(caught.value)
    with pytest.raises(FetchFailed):
        others.check()
    monkeypatch.setattr("fusefs.content.recent.time.monotonic", lambda: now + 2.0)
    others.check()


def test_an_error_that_is_shared_is_not_remembered() -> None:
    errors = RecentErrors()
    errors.add(FetchFailed(DigestMismatch("wrong"), shared=True))
    errors.check()


def test_an_error_of_pieces_is_for_those_who_want_all_of_them() -> None:
    errors = RecentErrors()
    errors.add(FetchFailed(DigestMismatch("wrong")), [3, 4])
    for others in ([], [3], [4], range(4, 9)):
        errors.check(others)
    for wanted in ([3, 4], range(9)):
        with pytest.raises(FetchFailed):
            errors.check(wanted)


def test_the_last_errors_are_remembered() -> None:
    errors = RecentErrors()
    for number in range(1000):
        errors.add(FetchFailed(DigestMismatch("wrong")), [number])
    errors.check([0])
    with pytest.raises(FetchFailed):
        errors.check([999])
    assert len(errors._errors) < 100


def test_a_read_goes_on_where_one_of_some_of_its_pieces_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    errors, began = RecentErrors(), time.monotonic() - 7
    with patience.one_read():
        patience.resume(began)
        errors.add(FetchFailed(BlobError("denied")), [3, 4])
    for wanted, is_known in ([4], True), ([5], False), ([1, 2, 3], True):
        with patience.one_read():
            errors.resume(wanted)
            assert (patience.since() == began) is is_known
    now = time.monotonic()
    monkeypatch.setattr("fusefs.content.recent.time.monotonic", lambda: now + 2)
    with patience.one_read():
        errors.resume([4])
        assert patience.since() > began
