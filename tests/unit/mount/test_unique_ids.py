"""The IDs of mounts that no other mount gets."""

import os
from pathlib import Path

import pytest

from fusefs.mount import unique_ids as module
from fusefs.mount.mountinfo import Mount, identified, is_mounted, mount_of, mounts
from fusefs.mount.unique_ids import is_there, unique_id, unique_ids
from tests.support.requirements import give_up


@pytest.fixture(name="proc")
def proc_mount() -> Mount:
    """Give the mount on /proc, on a kernel with unique IDs."""
    descriptor = os.open("/proc", os.O_PATH)
    try:
        mount = mount_of(descriptor)
    finally:
        os.close(descriptor)
    assert mount is not None
    if not mount.unique or is_there(mount.unique) is None:
        give_up("needs Linux 6.8, and no filter of system calls")
    return mount


def test_the_mounts_of_the_table_have_different_ones(proc: Mount) -> None:
    listed = list(mounts())
    found = unique_ids({mount.id for mount in listed})
    assert found.keys() == {mount.id for mount in listed}
    assert len(set(found.values())) == len(listed)
    assert all(map(is_there, found.values()))
    assert identified([proc._replace(unique=0)]) == [proc]
    assert unique_ids(()) == {}


def test_many_mounts_are_listed_in_several_answers(proc: Mount, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MANY", 2)
    assert unique_ids({proc.id}) == {proc.id: proc.unique}


def test_a_mount_is_known_by_its_unique_id_alone(proc: Mount) -> None:
    assert is_mounted(proc)
    assert is_mounted(proc._replace(id=0))
    # Another mount has the numbers of one that is gone.
    assert not is_mounted(proc._replace(unique=proc.unique + (1 << 40)))
    assert is_mounted(proc._replace(unique=0))
    assert not is_mounted(proc._replace(unique=0, connection=proc.connection + 1))


def test_a_kernel_that_does_not_tell_is_asked_for_the_table(proc: Mount, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_STATMOUNT", "_LISTMOUNT"):
        monkeypatch.setattr(module, name, 9999)
    assert (is_there(proc.unique), unique_ids({proc.id})) == (None, {})
    assert is_mounted(proc)
    assert not is_mounted(proc._replace(id=0))
    assert identified([proc]) == [proc._replace(unique=0)]


def test_a_descriptor_that_is_closed_lies_in_no_mount(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_PATH)
    os.close(descriptor)
    assert unique_id(descriptor) == 0
