"""A blob that is fetched at its first access."""

import errno
import os
import threading

import pytest

from fusefs.content.file import OpenFile
from fusefs.content.remote import FetchFailed, RemoteBlob
from fusefs.errors import NoSpace, RegistryError
from tests.support.conformance import check_reads

DATA = bytes(range(256)) * 100


def file_of(data: bytes) -> OpenFile:
    """Return a file with *data*."""
    descriptor = os.memfd_create("blob", os.MFD_CLOEXEC)
    os.write(descriptor, data)
    return OpenFile(descriptor, "blob")


def test_the_bytes_are_fetched_once_and_only_when_they_are_read() -> None:
    fetched: list[int] = []

    def fetch() -> OpenFile:
        fetched.append(1)
        return file_of(DATA)

    blob = RemoteBlob(len(DATA), fetch)
    part = blob.slice(10, 20)
    assert (blob.size, blob.stored, blob.file_place(), blob.read_cached(0, 10)) == (len(DATA), len(DATA), None, None)
    blob.check()
    assert fetched == []
    assert bytes(part.read_at(5, 100)) == DATA[15:30]
    place = blob.file_place()
    assert place is not None
    assert place.offset == 0
    blob.fetch()
    check_reads(blob)
    assert fetched == [1]
    blob.close()


def test_who_waits_shares_the_error_and_the_next_access_tries_again() -> None:
    began, go, attempts = threading.Event(), threading.Event(), []

    def fetch() -> OpenFile:
        attempts.append(1)
        if len(attempts) > 1:
            return file_of(DATA)
        began.set()
        go.wait()
        raise RegistryError("gone")

    blob = RemoteBlob(len(DATA), fetch)
    errors: list[OSError] = []

    def read() -> None:
        try:
            blob.read_at(0, 1)
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=read) for _ in range(8)]
    threads[0].start()
    began.wait()
    for thread in threads[1:]:
        thread.start()
    threading.Event().wait(0.2)  # until they all wait
    go.set()
    for thread in threads:
        thread.join()
    assert [(error.errno, error.strerror) for error in errors] == [(errno.EIO, "gone")] * 8
    assert attempts == [1]
    assert bytes(blob.read_at(0, 4)) == DATA[:4]
    blob.close()


def test_a_full_disk_is_told_from_other_errors() -> None:
    def fetch() -> OpenFile:
        raise NoSpace("full")

    with pytest.raises(FetchFailed) as caught:
        RemoteBlob(1, fetch).fetch()
    assert caught.value.errno == errno.ENOSPC
    assert isinstance(caught.value.error, NoSpace)
