"""The packages of a release, built from this folder and installed into root directories that have nothing else."""

import io
import os
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from fusefs import __version__
from tests.support.builders import Archive, layer
from tests.support.debian_roots import debian_root, run_in_copy
from tests.support.namespaces import SOURCES
from tests.support.requirements import FUSE, need

_BUILDS = ("python3", "python3-venv", "python3-dev", "gcc", "libc6-dev", "pkg-config", "fuse3", "libfuse3-dev", "pipx")
"""The Debian packages that the builds need; scripts/setup would install them, each time again."""
RELEASES = {"bookworm": "deb12", "trixie": "deb13"}

_USE = """\
mkdir -p /mnt/img
imgfs mount {archive} /mnt/img
grep -q hello /mnt/img/rootfs/etc/motd
imgfs umount /mnt/img
mount -t imgfs {archive} /mnt/img
grep -q hello /mnt/img/rootfs/etc/motd
umount /mnt/img
useradd --create-home tester
install -d -o tester /mnt/of-tester
setpriv --reuid=tester --regid=tester --clear-groups env HOME=/home/tester bash -euxc '
    imgfs mount {archive} /mnt/of-tester
    grep -q hello /mnt/of-tester/rootfs/etc/motd
    imgfs umount /mnt/of-tester'
"""


_ONCE = "export PIP_CACHE_DIR={folder}/pip\n"
"""Lets pip compile a package once for all tests, for each Python."""
_BUILD = f"{_ONCE}SOURCE_DATE_EPOCH=1700000000 {{folder}}/imgfs/scripts/package deb {{folder}}/{{release}}\n"
_INSTALL_AND_UNINSTALL = """\
files() {{ find / -xdev \\( -path /tmp -o -path /root/.cache \\) -prune -o "$@" -print | sort; }}
files > /tmp/before
files ! -type d > /tmp/files-before
{folder}/imgfs/scripts/install
files ! -type d | comm -13 /tmp/files-before - > {folder}/installed
test -d /etc/imgfs
mkdir -p /mnt/img
imgfs mount {folder}/app.tar /mnt/img
grep -q hello /mnt/img/rootfs/etc/motd
imgfs umount /mnt/img
rmdir /mnt/img
test -d /var/cache/imgfs
{folder}/imgfs/scripts/install --uninstall
files > /tmp/after
comm -3 /tmp/before /tmp/after > {folder}/left
"""


@pytest.fixture(name="folder", scope="module")
def folder_fixture() -> Iterator[Path]:
    """Give a folder with an archive, and a copy of the sources, whose git belongs to whoever runs the tests."""
    with tempfile.TemporaryDirectory(prefix="imgfs-tests-packages-", dir="/var/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        Archive([layer({"etc/motd": b"hello\n"})]).write(folder / "app.tar")
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=SOURCES, capture_output=True, check=True).stdout
        for path in listed.decode().split("\0")[:-1]:
            if (SOURCES / path).exists():
                (folder / "imgfs" / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(SOURCES / path, folder / "imgfs" / path)
        yield folder


def _package(folder: Path, kind: str, name: str) -> list[Path]:
    """Run scripts/package for *kind* and return the packages, in the folder *name*."""
    environment = os.environ | {"SOURCE_DATE_EPOCH": "1700000000"}
    command = [str(folder / "imgfs" / "scripts" / "package"), kind, str(folder / name)]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return sorted((folder / name).iterdir())


@pytest.fixture(name="built", scope="module")
def built_fixture(folder: Path) -> list[Path]:
    """Give the wheel and the source distribution."""
    return _package(folder, "wheel", "first")


def test_two_builds_have_the_same_bytes_and_valid_metadata(folder: Path, built: list[Path]) -> None:
    first, second = built, _package(folder, "wheel", "second")
    wheel, source = first
    assert [path.name for path in first] == [f"imgfs-{__version__}-py3-none-any.whl", f"imgfs-{__version__}.tar.gz"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    subprocess.run([SOURCES / ".venv/bin/twine", "check", "--strict", wheel, source], check=True, capture_output=True)
    names = zipfile.ZipFile(wheel).namelist()
    data = f"imgfs-{__version__}.data/data"
    assert [name for name in names if not name.startswith(("fusefs/", f"imgfs-{__version__}.dist-info/"))] == [
        f"{data}/share/man/man1/imgfs.1"
    ]
    assert {"fusefs/py.typed", *(f"fusefs/cli/commands/completion.{shell}" for shell in ("bash", "zsh", "fish"))} <= {
        *names
    }


def test_pip_and_pipx_install_what_was_built(folder: Path, built: list[Path]) -> None:
    need(FUSE)
    wheel, source = built
    run_in_copy(
        debian_root("trixie", "builds-1", *_BUILDS),
        _ONCE.format(folder=folder)
        + f"""
        python3 -m venv /opt/with-pip
        /opt/with-pip/bin/pip install -q '{wheel}[ssh,s3]'
        pipx install -q {source}
        for imgfs in /opt/with-pip/bin/imgfs /root/.local/bin/imgfs; do
            mkdir -p /mnt/img
            $imgfs mount {folder}/app.tar /mnt/img
            grep -q hello /mnt/img/rootfs/etc/motd
            $imgfs umount /mnt/img
        done
        pipx uninstall -q imgfs
        ! test -e /root/.local/bin/imgfs
        """,
        folder,
    )


@pytest.fixture(name="package_for", scope="module")
def packages_for_releases(folder: Path) -> Callable[[str], Path]:
    """Give a function that builds the Debian package for a release, once, then installs and uninstalls imgfs there."""

    @cache
    def build(release: str) -> Path:
        need(FUSE)
        script = _BUILD + (_INSTALL_AND_UNINSTALL if release == "bookworm" else "")
        root = debian_root(release, "builds-1", *_BUILDS)
        run_in_copy(root, script.format(folder=folder, release=release), folder)
        (package,) = (folder / release).iterdir()
        return package

    return build


def test_the_debian_package_has_the_files_of_an_installation_which_leaves_nothing(
    folder: Path, package_for: Callable[[str], Path]
) -> None:
    package = package_for("bookworm")
    assert (folder / "left").read_text() == ""
    installed = {
        path.replace("/usr/local/", "/usr/").replace("/zsh/site-functions/", "/zsh/vendor-completions/")
        for path in (folder / "installed").read_text().splitlines()
    }
    data = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        packaged = {member.name.removeprefix(".").removesuffix(".gz") for member in tar if not member.isdir()}
    documents = {path for path in packaged if path.startswith("/usr/share/doc/imgfs/")}
    assert packaged - documents == installed - {"/usr/lib/imgfs/installed-files"}


@pytest.mark.parametrize(("release", "version"), RELEASES.items())
def test_the_debian_package_installs_mounts_and_leaves_nothing(
    folder: Path, package_for: Callable[[str], Path], release: str, version: str
) -> None:
    package = package_for(release)
    assert package.name.startswith(f"imgfs_{__version__}+{version}_")
    files = r"find / -xdev \( -path /var/log -o -path /var/lib/dpkg -o -path /var/lib/apt \) -prune -o -print"
    said = run_in_copy(
        debian_root(release, "fresh-1"),
        f"""
        apt-get update -qq
        apt-get install -qq --no-install-recommends $(dpkg-deb -f {package} Depends | sed 's/([^)]*)//g; s/,/ /g')
        {files} | sort > /tmp/before
        apt-get install -qq {package}
        test -e /usr/share/man/man1/imgfs.1.gz -a -e /usr/lib/systemd/system/imgfs@.service -a -d /etc/imgfs
        {_USE.format(archive=folder / "app.tar")}
        userdel --remove tester
        rm -rf /mnt/img /mnt/of-tester
        apt-get purge -qq imgfs
        {files} | sort > /tmp/after
        test -z "$(ls -A /var/log/imgfs /var/cache/imgfs 2>/dev/null)"
        echo left:
        comm -13 /tmp/before /tmp/after
        """,
        folder,
    )
    left = said.partition("left:\n")[2].splitlines()
    assert [path for path in left if not path.startswith(("/tmp/", "/var/cache/apt/", "/etc/"))] == []
    assert [path for path in left if "imgfs" in path] == []
