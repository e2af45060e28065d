"""Kernel mounts on other kernels: ``python -m tests.drills.kernels [SUITE…]``; see ``scripts/soak``.

Boots the kernel of each Debian suite in QEMU, without a disk, and runs `tests.programs.kernel_guest` there.  It
downloads some 300 MB a suite and takes five minutes.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.folders import new_folder
from tests.support.namespaces import SOURCES
from tests.support.requirements import ROOT, need

SUITES = ("bookworm", "trixie")
_BOOT_TIMEOUT = 600
"""Seconds for one machine, which is emulated."""
_UNUSED = (
    *("./boot", "./usr/share/doc", "./usr/share/man", "./usr/share/locale", "./var/lib", "./var/cache"),
    *("*/kernel/net", "*/kernel/sound", "*/kernel/arch", "*/kernel/drivers/[!b]*", "*/kernel/drivers/b[!l]*"),
)
_INIT = """\
#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin PYTHONPATH=/imgfs
mount -t proc p /proc && mount -t sysfs s /sys && mount -t devtmpfs d /dev
mkdir -p /dev/shm /memory && mount -t tmpfs t /dev/shm && mount -t ramfs r /memory && mount --make-rshared /
modprobe loop
python3 -m tests.programs.kernel_guest
echo o > /proc/sysrq-trigger
sleep 60
"""


def main(suites: list[str]) -> int:
    """Run the drill for each of *suites*; return the number of those whose kernel is wrong."""
    need(ROOT, "mmdebstrap")
    folder = new_folder("kernels")
    try:
        machine = folder / "machine"
        _install(machine, "bookworm", "qemu-system-x86,seabios,ipxe-qemu")
        return sum(not _is_right(folder, machine, suite) for suite in suites)
    finally:
        shutil.rmtree(folder)


def _is_right(folder: Path, machine: Path, suite: str) -> bool:
    guest = folder / suite
    _install(guest, suite, "linux-image-amd64,python3,kmod,cpio,util-linux")
    for name in ("fusefs", "tests"):
        shutil.copytree(SOURCES / name, guest / "imgfs" / name, ignore=shutil.ignore_patterns("__pycache__", "corpus"))
    (guest / "init").write_text(_INIT)
    (guest / "init").chmod(0o755)
    (kernel,) = (guest / "boot").glob("vmlinuz-*")
    shutil.copy(kernel, machine / "kernel")
    unused = " -o ".join(f"-path '{path}'" for path in _UNUSED)
    script = f"cd / && find . -xdev \\( {unused} \\) -prune -o -print | cpio -o -H newc --quiet"
    with (machine / "files").open("wb") as files:
        subprocess.run(["chroot", str(guest), "sh", "-c", script], stdout=files, check=True)
    output = _booted(machine)
    print(suite, *output.splitlines()[-20:], sep="\n", flush=True)
    return "all is right" in output.splitlines()


def _booted(machine: Path) -> str:
    options = ["-m", "2000", "-nographic", "-no-reboot", "-nic", "none", "-kernel", "/kernel", "-initrd", "/files"]
    append = "console=ttyS0 panic=-1 quiet rdinit=/init"
    command = ["chroot", str(machine), "qemu-system-x86_64", *options, "-append", append]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, errors="replace", timeout=_BOOT_TIMEOUT, check=False
    )
    return done.stdout.replace("\r", "")


def _install(folder: Path, suite: str, packages: str) -> None:
    print(f"kernels: installing {suite}: {packages}", flush=True)
    plain = '--aptopt=APT::Install-Recommends "false"'
    command = ["mmdebstrap", "--quiet", "--variant=minbase", plain, f"--include={packages}", suite, str(folder)]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or [*SUITES]))
