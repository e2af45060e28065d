"""Root directories of Debian releases, in which commands run that install something; all of it ends with them."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.support.real_image import root_file_system
from tests.support.requirements import ROOT, give_up, need

_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
_ENTER = """\
root=$1 place=$2/copy disk=$2/disk
shift 2
mount --make-rprivate /
mkdir "$place" "$disk"
mount -t tmpfs tmpfs "$place"
mkdir "$place/upper" "$place/work" "$place/root"
mount -t overlay -o "lowerdir=$root,upperdir=$place/upper,workdir=$place/work" overlay "$place/root"
certificates=$(cat /etc/ssl/certs/ca-certificates.crt)
cat /etc/resolv.conf > "$place/root/etc/resolv.conf"
ln -sf ../proc/self/mounts "$place/root/etc/mtab"  # fusermount3 of trixie needs it
mkdir -p "$place/root/etc/ssl/certs"
echo "$certificates" > "$place/root/etc/ssl/certs/ca-certificates.crt"
mount -t proc proc "$place/root/proc"
mount --rbind /sys "$place/root/sys"
mount --rbind /dev "$place/root/dev"
mount -t tmpfs tmpfs "$place/root/run"
echo "$certificates" > "$place/root/run/certificates.crt"  # the package ca-certificates replaces the other one
mount --bind "$disk" "$place/root/var/tmp"
while [ "$1" != -- ]; do
    mkdir -p "$place/root$1"
    mount --rbind "$1" "$place/root$1"
    shift
done
shift
cd "$place/root"
pivot_root . .
umount -l .
exec "$@"
"""
"""Runs a command in a copy of a root that is in memory, with folders of this machine at their own paths.

/var/tmp is on a disk: the kernel mounts no EROFS metadata that lie in an overlay.
"""


def debian_root(release: str, name: str, *packages: str) -> Path:
    """Return the root directory of a Debian *release* with *packages*, made once for all sessions, as *name*."""
    need(ROOT, "unshare", "mmdebstrap")
    path = root_file_system().parent / f"debian-{release}-{name}"
    if not path.exists():
        unfinished = path.parent / f"unfinished-{os.getpid()}"
        include = [f"--include={','.join(packages)}"] if packages else []
        # The state of sid that a mirror has may be older than it states to be valid.
        valid = ['--aptopt=Acquire::Check-Valid-Until "false"'] if release == "sid" else []
        command = ["mmdebstrap", "--variant=minbase", *valid, *include, release, str(unfinished)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            shutil.rmtree(unfinished, ignore_errors=True)
            give_up(f"mmdebstrap fails: {done.stderr.strip().splitlines()[-1]}")
        unfinished.rename(path)
    return path


def run_in_copy(root: Path, script: str, *folders: Path) -> str:
    """Run the shell *script* in a copy of *root*, with *folders* of this machine, and return its output.

    The copy, and every process and mount in it, end with the script.
    """
    done = run_in_copy_of(root, script, *folders)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def run_in_copy_of(root: Path, script: str, *folders: Path, timeout: int = 1800) -> subprocess.CompletedProcess[str]:
    """Run the shell *script* as `run_in_copy` does, and return its status, too."""
    environment = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    environment |= {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
    environment |= {"DEBIAN_FRONTEND": "noninteractive", "HOME": "/root"}
    if Path(_CERTIFICATES).exists():
        environment["PIP_CERT"] = "/run/certificates.crt"
    with tempfile.TemporaryDirectory(prefix="imgfs-tests-root-", dir="/var/tmp") as place:
        enter = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-euc", _ENTER, "enter"]
        return subprocess.run(
            [*enter, str(root), place, *map(str, folders), "--", "bash", "-euxo", "pipefail", "-c", script],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
