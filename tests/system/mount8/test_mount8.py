"""mount(8) and fstab: imgfs as the helper, found and called by the real programs."""

import gzip
from pathlib import Path

import pytest

from tests.support.builders import Archive
from tests.support.engines import RealEngine
from tests.support.erofs_mounts import need_kernel_mounts
from tests.support.mounts import Bench, Finished, without_figures
from tests.support.namespaces import Namespace
from tests.support.real_image import NGINX

TYPES = ("fuse.imgfs", "imgfs")


@pytest.fixture(name="archive")
def small_archive(imgfs: Bench) -> Path:
    """A small image."""
    return Archive().write(imgfs.folder / "image.tar")


@pytest.fixture(name="mountpoint")
def empty_directory(imgfs: Bench) -> Path:
    """Where to mount."""
    return imgfs.mountpoint()


def _places(imgfs: Bench) -> str:
    return f"cache-dir={imgfs.cache},tmpdir={imgfs.spool},log-file={imgfs.log}"


def _options(namespace: Namespace, mountpoint: Path) -> set[str]:
    """Return the options of the mount at *mountpoint*, as mount(8) lists them."""
    lines = namespace.run("findmnt", "-n", "-o", "OPTIONS", mountpoint).out.split()
    return set(",".join(lines).split(","))


@pytest.mark.parametrize("kind", TYPES)
def test_mount_8_mounts_an_image_and_unmounts_it(
    imgfs: Bench, namespace: Namespace, archive: Path, mountpoint: Path, kind: str
) -> None:
    options = f"ro,allow_other,noexec,x-systemd.automount,_netdev,{_places(imgfs)}"
    assert namespace.run("mount", "-t", kind, archive, mountpoint, "-o", options) == Finished(0, "", "")
    assert namespace.mounted() == [str(archive)]
    assert namespace.run("cat", mountpoint / "config") == Finished(0, Archive().config_data.decode(), "")
    assert {"ro", "noexec", "nodev", "nosuid", "allow_other"} <= _options(namespace, mountpoint)
    assert imgfs.log.exists()
    assert namespace.run("umount", mountpoint) == Finished(0, "", "")
    assert namespace.mounted() == []


@pytest.mark.parametrize("kind", TYPES)
def test_a_line_of_fstab_is_mounted_once(
    imgfs: Bench, namespace: Namespace, archive: Path, mountpoint: Path, kind: str
) -> None:
    options = f"ro,noauto,nofail,x-systemd.automount,_netdev,comment=a,{_places(imgfs)}"
    fstab = imgfs.folder / "fstab"
    fstab.write_text(f"docker-archive:{archive} {mountpoint} {kind} {options} 0 0\n")
    assert namespace.run("mount", "-T", fstab, mountpoint) == Finished(0, "", "")
    assert namespace.mounted() == [f"docker-archive:{archive}"]
    fstab.write_text(fstab.read_text().replace("noauto", "auto"))
    assert namespace.run("mount", "-T", fstab, "-a") == Finished(0, "", "")
    assert namespace.mounted() == [f"docker-archive:{archive}"]


@pytest.mark.parametrize("kind", TYPES)
def test_the_kernel_mount_of_a_line_of_fstab_is_made_once(
    imgfs: Bench, namespace: Namespace, archive: Path, mountpoint: Path, kind: str
) -> None:
    need_kernel_mounts()
    archive.write_bytes(gzip.compress(archive.read_bytes()))
    fstab = imgfs.folder / "fstab"
    fstab.write_text(f"docker-archive:{archive} {mountpoint} {kind} ro,noexec,driver=erofs,{_places(imgfs)} 0 0\n")
    found = ("findmnt", "-no", "FSTYPE,SOURCE", "--mountpoint", mountpoint)
    for _ in range(2):
        assert namespace.run("mount", "-T", fstab, "-a") == Finished(0, "", "")
        assert namespace.run(*found).out.split() == ["erofs", f"docker-archive:{archive}"]
    assert {"ro", "noexec", "nodev", "nosuid"} <= _options(namespace, mountpoint)
    assert namespace.run("umount", mountpoint) == Finished(0, "", "")
    assert namespace.run("mount", "-T", fstab, mountpoint) == Finished(0, "", "")
    for command in (["umount", "-l", mountpoint], ["umount", "-a", "-t", "erofs"]):
        assert namespace.run("mount", "-T", fstab, "-a") == Finished(0, "", "")
        assert namespace.run(*command) == Finished(0, "", "")
        assert namespace.run(*found).out == ""


def test_an_engines_image_is_mounted_without_an_environment(
    imgfs: Bench, namespace: Namespace, docker_engine: RealEngine, mountpoint: Path
) -> None:
    imgfs.mountpoint(NGINX.partition(":")[0])  # a folder of that name, which mount(8) would make the source
    fstab = imgfs.folder / "fstab"
    options = f"ro,allow_other,platform=linux/amd64,x-systemd.automount,_netdev,quiet,host={docker_engine.host}"
    fstab.write_text(f"docker-daemon:{NGINX} {mountpoint} fuse.imgfs {options} 0 0\n")
    done = namespace.run("env", "-i", imgfs.marker, _package(imgfs), "/usr/bin/mount", "-T", fstab, mountpoint)
    assert done == Finished(0, "", "")
    assert namespace.mounted() == [f"docker-daemon:{NGINX}"]
    layers = docker_engine.inspect(NGINX)["RootFS"]["Layers"]
    numbers = "".join(f"{number}\n" for number in range(len(layers)))
    assert namespace.run("ls", mountpoint / "layers") == Finished(0, numbers, "")
    assert namespace.run("imgfs", "cache", "path") == Finished(0, "/var/cache/imgfs\n", "")
    assert namespace.run("ls", "/var/cache/imgfs").out != ""


def _package(imgfs: Bench) -> str:
    """Return the variable that says which package is tested."""
    return f"PYTHONPATH={imgfs.environment.get('PYTHONPATH', '')}"


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize(
    ("source", "options", "answer"),
    [
        ("{archive}", "ro,bogus", (1, "unknown mount option 'bogus'")),
        ("{archive}", "remount,ro", (1, "unknown mount option 'remount'")),
        ("{archive}", "verify=1", (1, "option verify takes no value")),
        ("docker-archive:", "ro", (1, "bad reference 'docker-archive:': expected docker-archive:PATH[:REF|:@INDEX]")),
        ("{archive}.not", "ro", (32, "cannot open {archive}.not: No such file or directory")),
        ("/dev/null", "ro", (32, "/dev/null: not a tar archive: the file is empty")),
    ],
)
def test_the_exit_status_is_that_of_mount_8(
    namespace: Namespace, kind: str, source: str, options: str, answer: tuple[int, str]
) -> None:
    archive = Archive().write(namespace.imgfs.folder / "image.tar")
    status, message = answer
    command = ("mount", "-t", kind, source.format(archive=archive), namespace.imgfs.mountpoint(), "-o", options)
    assert namespace.run(*command) == Finished(status, "", f"imgfs: {message.format(archive=archive)}\n")
    assert namespace.mounted() == []


def test_the_flags_of_mount_8(imgfs: Bench, namespace: Namespace, archive: Path, mountpoint: Path) -> None:
    mount = ("mount", "-t", "imgfs", archive, mountpoint)
    assert namespace.run(*mount, "-f") == Finished(0, "", "")
    assert namespace.mounted() == []
    assert namespace.run(*mount, "-f", "-o", "bogus") == Finished(1, "", "imgfs: unknown mount option 'bogus'\n")
    done = namespace.run(*mount, "-n", "-v", "-s", "-o", f"bogus,{_places(imgfs)}")
    assert (done.status, done.out) == (0, "")
    assert without_figures(done.err) == f"imgfs: mounted {archive} on {mountpoint}; log: {imgfs.log}\n"
    assert namespace.mounted() == [str(archive)]
    done = namespace.run(*mount, "-s", "-o", "remount")
    assert done == Finished(1, "", "imgfs: unknown mount option 'remount'\n")


@pytest.mark.parametrize("name", ["list", "ls", "umount"])
def test_an_image_may_be_called_as_a_command(imgfs: Bench, namespace: Namespace, mountpoint: Path, name: str) -> None:
    done = namespace.run("mount", "-t", "fuse.imgfs", name, mountpoint, "-o", f"host=unix://{imgfs.folder}/none")
    assert done.status == 32
    assert str(imgfs.folder / "none") in done.err
