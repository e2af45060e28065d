"""The packages of a release, built from this folder and installed into root directories that have nothing else."""

import io
import os
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest

from fusefs import __version__
from tests.support.builders import Archive, layer
from tests.support.debian_roots import debian_root, run_in_copy
from tests.support.namespaces import SOURCES
from tests.support.requirements import FUSE, ROOT, need

_BUILDS = ("python3", "python3-venv", "python3-dev", "gcc", "libc6-dev", "pkg-config", "fuse3", "libfuse3-dev", "pipx")
"""The Debian packages that the builds need; scripts/setup would install them, each time again."""
_IGNORED = (SOURCES / ".gitignore").read_text().splitlines()
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


_HAS = """
for path in /usr/share/man/man1/imgfs.1.gz /usr/lib/systemd/system/imgfs@.service /etc/imgfs \\
    /usr/share/bash-completion/completions/imgfs /usr/share/zsh/vendor-completions/_imgfs \\
    /usr/share/fish/vendor_completions.d/imgfs.fish /usr/share/doc/imgfs/copyright; do test -e $path; done
"""
_UPGRADE = """
dpkg-deb --raw-extract {package} /tmp/next
sed -i 's/^Version: .*/Version: 9/' /tmp/next/DEBIAN/control
rm /tmp/next/usr/share/doc/imgfs/SECURITY.md
dpkg-deb -Zgzip -z1 --build /tmp/next /tmp/next.deb
imgfs mount {archive} /mnt/img
dpkg -i /tmp/next.deb 2> /tmp/warned
grep -qx 'imgfs: warning: these mounts may fail, unmount them and mount again: "/mnt/img"' /tmp/warned
imgfs umount /mnt/img
test "$(dpkg-query -W -f '${{Version}}' imgfs)" = 9 -a ! -e /usr/share/doc/imgfs/SECURITY.md
imgfs --version
rm -r /tmp/next /tmp/next.deb
"""
"""A higher version is installed while an image is mounted; a file that it does not have is gone."""
_BUILD = """\
export PIP_CACHE_DIR={folder}/cache SOURCE_DATE_EPOCH=1700000000
ln -s /usr/bin/python3 /usr/local/bin/python3
mkdir /tmp/other
[ {release} = trixie ] || (umask 077; TMPDIR=/tmp/other exec {folder}/imgfs/scripts/package deb {folder}/again) &
{folder}/imgfs/scripts/package deb {folder}/{release}
wait $!
rm /usr/local/bin/python3
"""
_MISSING_LIBRARY = """
mkdir -p {folder}/venv/bin {folder}/venv/lib/python3/site-packages/pyfuse3
ln -s /usr/bin/python3 {folder}/venv/bin/python
cd {folder}/venv
echo 'int a;' | gcc -shared -x c - -o libgone.so
echo 'extern int a; int *b = &a;' | gcc -shared -fPIC -x c - -o lib/python3/site-packages/pyfuse3/b.so -L. -lgone
rm libgone.so
eval "$(sed -n '/^fail() /p; /^dependencies() {{/,/^}}/p' {SOURCES}/scripts/package)"
dependencies {folder}/venv
"""
"""Runs the part of scripts/package that finds the libraries, for one that is not there."""
_INSTALL_AND_UNINSTALL = """\
mkdir -p /mnt/img /etc/systemd/system/multi-user.target.wants
files() {{ find / -xdev \\( -path /tmp -o -path /root/.cache \\) -prune -o "$@" -print | sort; }}
files > /tmp/before
files ! -type d > /tmp/files-before
{folder}/imgfs/scripts/install
files ! -type d | comm -13 /tmp/files-before - > {folder}/installed
test -d /etc/imgfs
imgfs mount {folder}/app.tar /mnt/img
grep -q hello /mnt/img/rootfs/etc/motd
imgfs umount /mnt/img
test -d /var/cache/imgfs
ln -s /usr/local/lib/systemd/system/imgfs@.service \\
    /etc/systemd/system/multi-user.target.wants/imgfs@mnt-img.service
imgfs mount {folder}/app.tar /mnt/img
{folder}/imgfs/scripts/install --uninstall 2> {folder}/warned
umount /mnt/img
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
        for path in _sources():
            if (SOURCES / path).is_file():
                (folder / "imgfs" / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(SOURCES / path, folder / "imgfs" / path)
        (folder / "imgfs" / "README.md").chmod(0o600)  # as a checkout with another umask has it
        yield folder


def _sources() -> list[str]:
    """Return the paths of the files of a release: of those that git knows, or of the unpacked source distribution."""
    if (SOURCES / ".git").exists():
        need("git")
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=SOURCES, capture_output=True, check=True).stdout
        return listed.decode().split("\0")[:-1]
    paths = [path.relative_to(SOURCES) for path in SOURCES.rglob("*") if path.is_file()]
    return [str(path) for path in paths if not any(_ignores(line, path) for line in _IGNORED)]


def _ignores(line: str, path: Path) -> bool:
    """Return whether a *line* of .gitignore names *path* or a folder that it is in."""
    parts = path.parts[:1] if line.startswith("/") else path.parts
    return any(fnmatch(part, line.strip("/")) for part in parts)


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
    with tarfile.open(source) as tar:
        released = {member.name.partition("/")[2] for member in tar}
    assert {*_sources()} - released == set()
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
        f"""
        export PIP_CACHE_DIR={folder}/pip CFLAGS="-g0 -O0"  # no test of the compiler
        python3 -m venv /opt/with-pip
        /opt/with-pip/bin/pip install -q --no-compile '{wheel}[ssh,s3]'
        pipx install -q --pip-args=--no-compile '{source}[s3]'
        for imgfs in /opt/with-pip/bin/imgfs /root/.local/bin/imgfs; do
            mkdir -p /mnt/img
            $imgfs mount {folder}/app.tar /mnt/img
            grep -q hello /mnt/img/rootfs/etc/motd
            $imgfs umount /mnt/img
        done
        /root/.local/share/pipx/venvs/imgfs/bin/python -c 'import obstore'
        pipx uninstall -q imgfs
        ! test -e /root/.local/bin/imgfs
        """,
        folder,
    )


def test_a_missing_library_is_an_error(tmp_path: Path) -> None:
    need("gcc", "dpkg-query")
    script = _MISSING_LIBRARY.format(folder=tmp_path, SOURCES=SOURCES)
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        1,
        "\tlibgone.so => not found\nscripts/package: a library is missing, which the package would need\n",
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
    assert (folder / "warned").read_text() == (
        'scripts/install: warning: these mounts may fail, unmount them and mount again: "/mnt/img"\n'
    )
    assert [path.read_bytes() for path in (folder / "again").iterdir()] == [package.read_bytes()]
    assert not (folder / "cache").exists()  # nothing comes from a cache that another distribution may have filled
    installed = {
        path.replace("/usr/local/", "/usr/").replace("/zsh/site-functions/", "/zsh/vendor-completions/")
        for path in (folder / "installed").read_text().splitlines()
    }
    data = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = {member.name.removeprefix(".").removesuffix(".gz"): member for member in tar}
    packaged = {name for name, member in members.items() if not member.isdir()}
    assert {oct(member.mode & 0o555) for member in members.values()} <= {"0o444", "0o555"}
    assert members["/usr/lib/imgfs/bin/python3"].linkname == "/usr/bin/python3"  # whatever stands first on the PATH
    documents = {path for path in packaged if path.startswith("/usr/share/doc/imgfs/")}
    assert packaged - documents == installed - {"/usr/lib/imgfs/installed-files"}


@pytest.mark.usefixtures("users_may_mount")
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
        mkdir -p /etc/systemd/system/multi-user.target.wants
        {files} | sort > /tmp/before
        ln -s /bin/true /usr/sbin/mount.imgfs
        ! dpkg -i {package}
        test "$(readlink /usr/sbin/mount.imgfs)" = /bin/true
        rm /usr/sbin/mount.imgfs
        test "$(dpkg-deb -f {package} Recommends)" = ca-certificates
        apt-get install -qq --no-install-recommends {package}
        ! {folder}/imgfs/scripts/install 2> /tmp/refused
        grep -q 'belongs to the package imgfs: nothing is changed' /tmp/refused
        {_HAS}
        {_USE.format(archive=folder / "app.tar")}
        userdel --remove tester
        {_UPGRADE.format(package=package, archive=folder / "app.tar")}
        ln -s /usr/lib/systemd/system/imgfs@.service \\
            /etc/systemd/system/multi-user.target.wants/imgfs@mnt-img.service
        apt-get remove -qq imgfs
        test -z "$(find / -xdev -path '/usr/*imgfs*')" -a -d /var/cache/imgfs
        test ! -L /etc/systemd/system/multi-user.target.wants/imgfs@mnt-img.service
        rm -rf /mnt/img /mnt/of-tester
        mkdir /usr/local/lib/imgfs  # of scripts/install, which has the same cache
        sh /var/lib/dpkg/info/imgfs.postrm purge
        test -d /var/cache/imgfs
        rmdir /usr/local/lib/imgfs
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


def test_root_packs_the_checkout_of_another_user_to_which_a_link_leads(tmp_path: Path) -> None:
    need(ROOT, "git")
    checkout, link = tmp_path / "checkout", tmp_path / "link"
    subprocess.run(["git", "init", "-q", checkout], check=True)
    (checkout / "file").touch()
    for path in (checkout, *checkout.rglob("*")):
        os.chown(path, 65534, 65534)
    link.symlink_to(checkout)
    script = f"""
    cd {link}
    eval "$(sed -n '/^ *git() /p' {SOURCES}/scripts/package)"
    git ls-files --others
    """
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    done = subprocess.run(["bash", "-euc", script], env=environment, check=True, capture_output=True, text=True)
    assert done.stdout == "file\n"
