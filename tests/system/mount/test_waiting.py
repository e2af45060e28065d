"""Mounts whose reads wait: the archive lies on a file system of ours that answers when it is told to."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.builders import LAYERS, Archive, layer, sha256
from tests.support.mounts import Bench, Finished, mounted_below
from tests.support.slow_archive import ABORTED, SlowFile

BIG = layer({"zeros": bytes(4 << 20), "noise": os.urandom(4 << 20)})


@pytest.fixture(name="slow")
def slow_file(imgfs: Bench) -> Iterator[SlowFile]:
    """Give the file; let everything pass at the end."""
    slow = SlowFile(imgfs, Archive(layers=(*LAYERS, BIG)).data())
    try:
        yield slow
    finally:
        slow.end()


class Client:
    """A process of its own that reads the big layer: one that waits cannot even be forked from."""

    def __init__(self, mountpoint: Path) -> None:
        path = mountpoint / "blobs" / "sha256" / sha256(BIG)[7:]
        self.process = subprocess.Popen(
            ["cat", path], env=os.environ | {"LC_ALL": "C"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def result(self) -> tuple[bytes, str]:
        """Return what it has read, and its error's text."""
        out, err = self.process.communicate(timeout=20)
        return out, err.decode().rpartition(": ")[2].strip()


def test_a_slow_archive_is_read_right(imgfs: Bench, slow: SlowFile) -> None:
    mountpoint = imgfs.mount(slow.path)
    assert Client(mountpoint).result() == (BIG, "")
    assert imgfs.run("umount", mountpoint) == Finished(0, "", "")


def test_other_requests_are_answered_while_a_read_waits(imgfs: Bench, slow: SlowFile) -> None:
    mountpoint = imgfs.mount(slow.path)
    slow.hold()
    client = Client(mountpoint)
    slow.hear("waiting")
    assert (mountpoint / "config").read_bytes() == Archive(layers=(*LAYERS, BIG)).config_data
    assert len(os.listdir(mountpoint / "blobs" / "sha256")) == 7
    assert client.process.poll() is None
    slow.go()
    assert client.result() == (BIG, "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_unmounts_at_once_while_a_read_waits(imgfs: Bench, slow: SlowFile, number: int) -> None:
    process = imgfs.foreground(slow.path)
    slow.hold()
    client = Client(imgfs.folder / "mnt")
    slow.hear("waiting")
    process.send_signal(number)
    # The file system below still holds the read: nobody waits for it.
    assert process.wait(10) == 0
    assert mounted_below(imgfs.folder / "mnt") == []
    data, error = client.result()
    assert (data, error in ABORTED) == (b"", True), error


def test_a_client_that_waits_can_be_killed(imgfs: Bench, slow: SlowFile) -> None:
    mountpoint = imgfs.mount(slow.path)
    slow.hold()
    client = Client(mountpoint)
    slow.hear("waiting")
    client.process.kill()
    assert client.result() == (b"", "")
    slow.go()
    assert Client(mountpoint).result() == (BIG, "")


def test_umount_aborts_a_mount_whose_process_is_stopped(imgfs: Bench, slow: SlowFile) -> None:
    mountpoint = imgfs.mount(slow.path)
    slow.hold()
    serving = imgfs.serving(mountpoint)
    client = Client(mountpoint)
    slow.hear("waiting")
    os.kill(serving, signal.SIGSTOP)
    try:
        assert imgfs.run("umount", mountpoint) == Finished(0, "", "")
        assert mounted_below(mountpoint) == []
        data, error = client.result()
        assert (data, error in ABORTED) == (b"", True), error
    finally:
        imgfs.log_is_quiet = False  # once it goes on, it answers requests that are gone
        os.kill(serving, signal.SIGCONT)


def test_umount_works_on_a_stopped_mount_that_nobody_uses(imgfs: Bench, slow: SlowFile) -> None:
    mountpoint = imgfs.mount(slow.path)
    serving = imgfs.serving(mountpoint)
    os.kill(serving, signal.SIGSTOP)
    try:
        assert imgfs.run("umount", mountpoint) == Finished(0, "", "")
        assert mounted_below(mountpoint) == []
    finally:
        os.kill(serving, signal.SIGCONT)


def test_umount_says_that_a_file_is_in_use_while_a_read_waits(imgfs: Bench, slow: SlowFile) -> None:
    mountpoint = imgfs.mount(slow.path)
    slow.hold()
    client = Client(mountpoint)
    slow.hear("waiting")
    done = imgfs.run("umount", mountpoint)
    why = rf"in use by [^ ]+ \([0-9]+\): {mountpoint}/[^ ]+"
    said = rf"imgfs: cannot unmount {mountpoint}: {why}; close it, or imgfs umount -l {mountpoint}\n"
    assert (done.status, bool(re.fullmatch(said, done.err))) == (9, True), done.err
    slow.go()
    assert client.result() == (BIG, "")


def test_two_hundred_waiting_clients_leave_room_for_others(imgfs: Bench, slow: SlowFile) -> None:
    mountpoint = imgfs.mount(slow.path)
    slow.hold()
    path = mountpoint / "blobs" / "sha256" / sha256(BIG)[7:]
    starts = [number << 15 for number in range(200)]
    clients = [
        subprocess.Popen(
            ["dd", f"if={path}", "bs=512", "count=1", f"skip={start >> 9}", "status=none"], stdout=subprocess.PIPE
        )
        for start in starts
    ]
    slow.hear("waiting")
    assert (mountpoint / "config").stat().st_size > 0
    assert os.statvfs(mountpoint).f_bfree == 0
    assert {client.poll() for client in clients} == {None}
    slow.go()
    assert [client.communicate(timeout=30)[0] for client in clients] == [BIG[start : start + 512] for start in starts]
