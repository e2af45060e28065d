"""The service of the repository, started by a systemd that has namespaces and units of its own."""

import contextlib
import gzip
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.builders import Archive
from tests.support.erofs_mounts import need_kernel_mounts
from tests.support.mounts import Bench, Finished
from tests.support.namespaces import ALONE, SOURCES, covering
from tests.support.processes import until
from tests.support.requirements import ROOT, give_up, need

_SYSTEMD = "/lib/systemd/systemd"
_GENERATORS = "/lib/systemd/system-generators"
_SERVICE = "imgfs@mnt-img.service"
_MOUNTPOINT = "/mnt/img"
# Its units are ours alone, and those made of our fstab: the machine's own would set up the machine.  However busy that
# is, nothing starts again before somebody has looked.
_BOOT = """
mount -t proc proc /proc && mount -t tmpfs t /run && mount -t cgroup2 c /sys/fs/cgroup && mount -t tmpfs t /mnt &&
mount -t tmpfs t $(realpath /lib/systemd/system) && mount -t overlay t -o lowerdir={folder}/etc:/etc /etc &&
cp {generators}/systemd-fstab-generator {folder}/etc && mount -t tmpfs t $(realpath {generators}) &&
mv {folder}/etc/systemd-fstab-generator {generators} && mkdir /mnt/img &&
mount -t tmpfs t /etc/systemd/system && cd /etc/systemd/system && cp {service} . &&
sed -i 's/^RestartSec=.*/RestartSec=600/' imgfs@.service &&
printf '[Unit]\\nDefaultDependencies=no\\n' | tee basic.target sysinit.target > shutdown.target &&
exec env container=tests {systemd} --system --unit=basic.target --log-target=null --show-status=no
"""


@dataclass(frozen=True)
class Systemd:
    """A systemd, the first process of its namespaces."""

    pid: int

    def run(self, *command: str) -> Finished:
        """Run *command* beside it."""
        inside = ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--cgroup", "--"]
        done = subprocess.run([*inside, *command], capture_output=True, text=True, check=False, timeout=60)
        return Finished(done.returncode, done.stdout, done.stderr)

    def shows(self, *names: str, unit: str = _SERVICE) -> dict[str, str]:
        """Return the properties *names* of *unit*."""
        out = self.run("systemctl", "show", *(f"--property={name}" for name in names), unit).out
        return dict(line.split("=", 1) for line in out.splitlines())


def _own_group(folder: Path) -> Path:
    """Make a control group for what runs in *folder*, since systemd takes the one that it finds for its own."""
    mounted = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    places = [place for _, place, kind, options, *_ in mounted if kind == "cgroup2" and options.startswith("rw")]
    if not places:
        give_up("needs cgroup2, writable")
    group = Path(places[0]) / folder.name
    group.mkdir()
    return group


def _booted(unshare: int) -> int:
    """Return the process in the namespaces once it is systemd and answers, 0 before."""
    with contextlib.suppress(OSError, ValueError):
        (child,) = Path(f"/proc/{unshare}/task/{unshare}/children").read_text().split()
        if Path(f"/proc/{child}/comm").read_text() == "systemd\n":
            answer = Systemd(int(child)).run("systemctl", "is-system-running").out
            return int(child) if answer == "running\n" else 0
    return 0


@pytest.fixture(name="systemd")
def systemd_fixture(imgfs: Bench, installation: Path, request: pytest.FixtureRequest) -> Iterator[Systemd]:
    """Give a systemd that knows the service; its image is the bench's archive.  A parameter is the driver."""
    driver = getattr(request, "param", "fuse")
    need(ROOT, "unshare", "nsenter", _SYSTEMD)
    folder = imgfs.folder
    etc = folder / "etc"
    for place in ("imgfs", "systemd/system.conf.d"):
        (etc / place).mkdir(parents=True)
    variables = " ".join(f"{name}={value}" for name, value in imgfs.environment.items() if name != "PATH")
    (etc / "systemd/system.conf.d/tests.conf").write_text(f"[Manager]\nDefaultEnvironment={variables}\n")
    image = folder / "image.tar"
    (etc / "imgfs/mnt-img.conf").write_text(f"IMAGE={image}\nOPTIONS=-o allow_other,noexec,driver={driver}\n")
    options = f"ro,noauto,allow_other,x-systemd.automount,_netdev,log-file={imgfs.log},driver={driver}"
    (etc / "fstab").write_text(f"docker-archive:{image} /mnt/auto fuse.imgfs {options} 0 0\n")
    service = SOURCES / "systemd" / "imgfs@.service"
    boot = _BOOT.format(folder=folder, service=service, systemd=_SYSTEMD, generators=_GENERATORS)
    group = _own_group(folder)
    script = folder / "boot"
    script.write_text(ALONE + covering(installation) + boot.lstrip())
    command = "unshare --mount --pid --fork --uts --ipc --cgroup --kill-child"
    unshare = subprocess.Popen(["sh", "-c", f"echo $$ > {group}/cgroup.procs && exec {command} sh {script}"])
    try:
        yield Systemd(until(lambda: _booted(unshare.pid), "systemd runs"))
    finally:
        unshare.kill()
        unshare.wait()
        until(lambda: (group / "cgroup.events").read_text().startswith("populated 0"), "all processes end")
        for path in sorted(group.rglob("*/"), reverse=True):
            path.rmdir()
        group.rmdir()
        shutil.rmtree(folder / "etc")


def test_the_service_is_active_once_the_mount_is_usable(imgfs: Bench, systemd: Systemd) -> None:
    Archive().write(imgfs.folder / "image.tar")
    assert systemd.run("systemctl", "start", _SERVICE) == Finished(0, "", "")
    assert systemd.run("cat", f"{_MOUNTPOINT}/config") == Finished(0, Archive().config_data.decode(), "")
    assert systemd.shows("Type", "ActiveState") == {"Type": "notify", "ActiveState": "active"}
    assert systemd.run("systemctl", "stop", _SERVICE) == Finished(0, "", "")
    ended = {"ActiveState": "inactive", "Result": "success", "ExecMainStatus": "0"}
    assert systemd.shows(*ended) == ended
    assert systemd.run("mountpoint", "-q", _MOUNTPOINT).status == 32


def test_what_a_killed_process_leaves_is_cleared(imgfs: Bench, systemd: Systemd) -> None:
    Archive().write(imgfs.folder / "image.tar")
    assert systemd.run("systemctl", "start", _SERVICE).status == 0
    assert systemd.run("systemctl", "kill", "--kill-whom=main", f"--signal={signal.SIGKILL.name}", _SERVICE).status == 0
    until(lambda: systemd.shows("SubState") == {"SubState": "auto-restart"}, "it is to be started again")
    assert systemd.run("mountpoint", "-q", _MOUNTPOINT).status == 32
    assert systemd.run("systemctl", "stop", _SERVICE).status == 0


def test_a_line_of_fstab_is_mounted_when_someone_looks(imgfs: Bench, systemd: Systemd) -> None:
    Archive().write(imgfs.folder / "image.tar")
    assert systemd.run("systemctl", "start", "mnt-auto.automount") == Finished(0, "", "")
    state = {"ActiveState": "inactive"}
    assert systemd.shows("ActiveState", unit="mnt-auto.mount") == state
    assert systemd.run("cat", "/mnt/auto/config") == Finished(0, Archive().config_data.decode(), "")
    state = {"ActiveState": "active", "Result": "success"}
    assert systemd.shows(*state, unit="mnt-auto.mount") == state
    assert systemd.run("systemctl", "stop", "mnt-auto.automount", "mnt-auto.mount") == Finished(0, "", "")
    assert systemd.run("mountpoint", "-q", "/mnt/auto").status == 32


def _write_compressed(imgfs: Bench) -> None:
    """Write an archive whose bytes cannot change under a kernel mount."""
    need_kernel_mounts()
    (imgfs.folder / "image.tar").write_bytes(gzip.compress(Archive().data()))


def _file_system(systemd: Systemd, mountpoint: str) -> str:
    return systemd.run("findmnt", "-no", "FSTYPE", "--mountpoint", mountpoint).out.strip()


@pytest.mark.parametrize("systemd", ["auto", "erofs"], indirect=True)
def test_the_service_is_active_as_long_as_its_kernel_mount_is_there(imgfs: Bench, systemd: Systemd) -> None:
    _write_compressed(imgfs)
    ended = {"ActiveState": "inactive", "Result": "success", "ExecMainStatus": "0"}
    for stop in (["systemctl", "stop", _SERVICE], ["umount", _MOUNTPOINT]):
        assert systemd.run("systemctl", "start", _SERVICE) == Finished(0, "", "")
        assert systemd.run("ls", f"{_MOUNTPOINT}/rootfs").status == 0
        until(lambda: _file_system(systemd, _MOUNTPOINT) == "erofs", "the kernel serves it")
        assert systemd.shows("ActiveState") == {"ActiveState": "active"}
        assert systemd.run(*stop) == Finished(0, "", "")
        until(lambda: systemd.shows(*ended) == ended, "the service ends")
        assert _file_system(systemd, _MOUNTPOINT) == ""


@pytest.mark.parametrize("systemd", ["erofs"], indirect=True)
def test_a_line_of_fstab_is_mounted_by_the_kernel_when_someone_looks(imgfs: Bench, systemd: Systemd) -> None:
    _write_compressed(imgfs)
    assert systemd.run("systemctl", "start", "mnt-auto.automount") == Finished(0, "", "")
    assert systemd.run("cat", "/mnt/auto/config") == Finished(0, Archive().config_data.decode(), "")
    assert _file_system(systemd, "/mnt/auto").splitlines()[-1] == "erofs"
    assert systemd.run("umount", "/mnt/auto") == Finished(0, "", "")
    assert systemd.run("cat", "/mnt/auto/config").status == 0  # mounted again
    assert systemd.run("systemctl", "stop", "mnt-auto.automount", "mnt-auto.mount") == Finished(0, "", "")
    assert systemd.run("mountpoint", "-q", "/mnt/auto").status == 32


def test_an_image_that_is_not_there_fails_the_start(systemd: Systemd) -> None:
    assert systemd.run("systemctl", "start", _SERVICE).status == 1
    assert systemd.shows("Result", "ExecMainStatus") == {"Result": "exit-code", "ExecMainStatus": "4"}
