"""``--driver``: when FUSE serves a mount, when the kernel does, and the change from one to the other."""

import gzip
import os
import re
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from fusefs.mount.mountinfo import mount_at
from fusefs.mount.unmounting import unmount_all
from tests.support.builders import LAYERS, Archive, compressed, image_config
from tests.support.erofs_mounts import by_kernel, kind, need_kernel_mounts, seal_again, until_kernel
from tests.support.fake_engine import Engine, default_engine
from tests.support.file_systems import disk, tmpfs
from tests.support.lookers import looked_at
from tests.support.mounts import Bench, mounted_below, tree, without_figures
from tests.support.processes import until
from tests.support.requirements import give_up

pytestmark = pytest.mark.usefixtures("kernel_mounts")
LINE = "is a kernel mount now"


@pytest.fixture(name="kernel_mounts")
def kernel_mounts_fixture(request: pytest.FixtureRequest) -> None:
    """Skip where the kernel mounts no EROFS; mount by the default driver."""
    need_kernel_mounts()
    request.getfixturevalue("user" if "user" in request.fixturenames else "imgfs").driver = ""


@pytest.fixture(name="engine")
def engine_on_a_socket(imgfs: Bench) -> Iterator[Engine]:
    """An engine with an image whose layers are plain."""
    with default_engine(imgfs) as engine:
        yield engine


@pytest.fixture(name="spooled")
def spooled_archive(imgfs: Bench) -> Path:
    """An archive that is compressed as a whole, with a compressed layer in it: its bytes cannot move."""
    archive = Archive(layers=[LAYERS[0], compressed(LAYERS[1], "gzip"), *LAYERS[2:]], config=image_config(LAYERS))
    path = imgfs.folder / "image.tar.gz"
    path.write_bytes(gzip.compress(archive.data()))
    return path


def attributes(folder: Path) -> dict[str, object]:
    """Return what stat and the extended attributes tell of the files below *folder*."""
    found: dict[str, object] = {}
    for path in folder.rglob("*"):
        about = os.lstat(path)
        size = 0 if stat.S_ISDIR(about.st_mode) else about.st_size
        xattrs = {
            name: os.getxattr(path, name, follow_symlinks=False) for name in os.listxattr(path, follow_symlinks=False)
        }
        key = str(path.relative_to(folder))
        found[key] = (about.st_mode, about.st_uid, about.st_gid, size, about.st_mtime_ns, about.st_rdev, xattrs)
    return found


@pytest.mark.parametrize("options", [[], ["-o", "uid=7,gid=8,umask=077"], ["-o", "transform_symlinks"], ["--no-trees"]])
def test_the_kernel_shows_what_fuse_shows(imgfs: Bench, spooled: Path, options: list[str]) -> None:
    kernel = by_kernel(imgfs, spooled, *options)
    fuse = imgfs.mount(spooled, "--driver", "fuse", *options)
    list(fuse.rglob("*"))  # lazy directories have their attributes then
    # The names of plain tars, which FUSE does not list.
    listed = {path.relative_to(kernel) for path in (kernel / "blobs").rglob("*") if path.is_symlink()}
    assert all((fuse / path).is_symlink() for path in listed)
    shown = {path: data for path, data in tree(kernel).items() if Path(path) not in listed}
    assert shown == tree(fuse)
    about = {path: facts for path, facts in attributes(kernel).items() if Path(path) not in listed}
    assert about == attributes(fuse)


def test_a_kernel_mount_has_no_process_and_no_file_of_it_is_left(imgfs: Bench, spooled: Path) -> None:
    mountpoint = by_kernel(imgfs, spooled)
    until(lambda: not imgfs.processes(), "no process is left")
    assert os.listdir(imgfs.spool) == []
    spooled.unlink()
    assert (mountpoint / "rootfs" / "a").exists() or tree(mountpoint)
    assert imgfs.run("umount", mountpoint).status == 0
    assert mounted_below(imgfs.folder) == []


@pytest.mark.parametrize(
    ("options", "mode"),
    [
        ([], 0o500),
        (["-o", "allow_root"], 0o500),
        (["-o", "allow_other"], 0o555),
        (["-o", "umask=0"], 0o500),
        (["-o", "allow_other,umask=077"], 0o700),
    ],
)
def test_without_allow_other_the_root_is_private(imgfs: Bench, spooled: Path, options: list[str], mode: int) -> None:
    assert stat.S_IMODE(os.stat(by_kernel(imgfs, spooled, *options)).st_mode) == mode


def test_nobody_sees_the_kernel_take_over(imgfs: Bench, spooled: Path) -> None:
    mountpoint = imgfs.mount(spooled)
    with (mountpoint / "config").open("rb") as file:
        with looked_at(mountpoint / "blobs" / "sha256", 100_000):
            os.listdir(mountpoint / "rootfs")
            until_kernel(mountpoint)
        assert imgfs.processes()
        assert file.read() == (mountpoint / "config").read_bytes()
    until(lambda: not imgfs.processes(), "the process ends with the last open file")
    assert LINE in imgfs.log.read_text()
    assert mounted_below(mountpoint) == [str(mountpoint)]


@pytest.mark.parametrize("lazily", [False, True])
def test_umount_takes_the_kernel_mount_if_that_took_over_meanwhile(
    imgfs: Bench, spooled: Path, *, lazily: bool
) -> None:
    mountpoint = imgfs.mount(spooled)
    fuse = mount_at(str(mountpoint))
    assert fuse is not None
    os.listdir(mountpoint / "rootfs")
    until_kernel(mountpoint)
    assert unmount_all([fuse], lazily=lazily) == []
    assert mounted_below(mountpoint) == []


def test_index_makes_it_a_kernel_mount_without_an_access(imgfs: Bench, spooled: Path) -> None:
    until_kernel(imgfs.mount(spooled, "--index"))


def test_blobs_alone_do_not(imgfs: Bench, spooled: Path) -> None:
    mountpoint = imgfs.mount(spooled)
    for path in (mountpoint / "blobs" / "sha256").iterdir():
        path.read_bytes()
    os.listdir(mountpoint / "layers" / "0")
    assert kind(mountpoint) == "fuse.imgfs"
    assert len(imgfs.made_files(mountpoint)) < len(LAYERS)


@pytest.mark.parametrize("options", [["--driver", "fuse"], ["-o", "driver=fuse"]])
def test_fuse_stays_fuse(imgfs: Bench, spooled: Path, options: list[str]) -> None:
    mountpoint = imgfs.mount(spooled, "--index", *options)
    list(mountpoint.rglob("*"))
    assert (kind(mountpoint), LINE in imgfs.log.read_text()) == ("fuse.imgfs", False)


@pytest.fixture(name="changeable", params=["tmpfs", "ext4"])
def archive_without_snapshots(imgfs: Bench, request: pytest.FixtureRequest) -> Iterator[Path]:
    """An archive on a file system that makes no snapshots."""
    folder = imgfs.mountpoint("files")
    with tmpfs(folder) if request.param == "tmpfs" else disk(request.param, folder):
        yield Archive().write(folder / "image.tar")
        imgfs.end_mounts()
        until(lambda: not imgfs.processes(), "all processes end")


def test_an_archive_that_may_change_stays_fuse_and_the_log_says_why(imgfs: Bench, changeable: Path) -> None:
    archive = changeable
    mountpoint = imgfs.mount(archive, "--index")
    list(mountpoint.rglob("*"))
    assert kind(mountpoint) == "fuse.imgfs"
    assert f"{archive} is mounted by FUSE: {archive} may be written to, and " in imgfs.log.read_text()


def test_the_driver_erofs_refuses_such_an_archive(imgfs: Bench, changeable: Path) -> None:
    archive = changeable
    failed = imgfs.run("mount", "--driver", "erofs", archive, imgfs.mountpoint())
    assert (failed.status, failed.out) == (9, "")
    (line,) = failed.err.splitlines()
    assert line.startswith(
        f"imgfs: {archive} may be written to, and no snapshot of it can be made in {archive.parent}: "
    )
    assert line.endswith(": Operation not supported; pipe it into imgfs, or let FUSE mount it")
    assert mounted_below(imgfs.folder) == [str(archive.parent)]


@pytest.mark.parametrize("driver", ["auto", "erofs"])
@pytest.mark.parametrize("file_system", ["xfs", "btrfs"])
def test_an_archive_with_a_snapshot_is_shown_as_it_was_whatever_happens_to_it(
    imgfs: Bench, file_system: str, driver: str
) -> None:
    mountpoint = imgfs.mountpoint()
    with disk(file_system, imgfs.folder / "files") as folder:
        archive = Archive().write(folder / "image.tar")
        shown = tree(imgfs.mount(archive, "--driver", "fuse", at=imgfs.mountpoint("fuse")) / "rootfs")
        imgfs.end_mounts()
        words = ["--driver", driver, "--index", "--log-file", str(imgfs.log)]
        assert imgfs.run("mount", *words, archive, mountpoint).status == 0
        until_kernel(mountpoint)
        until(lambda: not imgfs.processes(), "no process is left")
        archive.write_bytes(b"\xff" * archive.stat().st_size)
        archive.unlink()
        assert tree(mountpoint / "rootfs") == shown
        assert imgfs.run("umount", mountpoint).status == 0


def test_other_users_have_fuse_without_a_word(user: Bench) -> None:
    path = user.folder / "image.tar.gz"
    path.write_bytes(gzip.compress(Archive().data()))
    mountpoint = user.mountpoint()
    os.chown(mountpoint, 65534, 65534)
    user.mount(path, "--index", at=mountpoint)
    assert kind(mountpoint) == "fuse.imgfs"
    assert user.log.read_text() == ""
    failed = user.run("mount", "--driver", "erofs", path, user.mountpoint("other"))
    assert (failed.status, failed.err) == (9, "imgfs: only root may mount with the driver erofs\n")


@pytest.mark.usefixtures("engine")
def test_cached_metadata_are_mounted_at_once(imgfs: Bench) -> None:
    first = imgfs.mount("img")
    os.listdir(first / "rootfs")
    until_kernel(first)
    until(lambda: not imgfs.processes(), "the FUSE mount ends")
    (metadata,) = imgfs.cache.glob("saved/*/*.erofs")
    written = metadata.stat()
    second = imgfs.mountpoint("second")
    done = imgfs.run("mount", "img", second)
    assert (done.status, without_figures(done.err)) == (0, f"imgfs: mounted img on {second}\n")
    assert (kind(second), imgfs.processes()) == ("erofs", {})
    assert metadata.stat().st_mtime_ns == written.st_mtime_ns
    assert tree(second) == tree(first)
    assert imgfs.run("cache", "prune", "--all").status == 0
    assert tree(second) == tree(first)


def test_cached_metadata_without_the_plain_tars_decompress_nothing(imgfs: Bench, engine: Engine) -> None:
    layers = [LAYERS[0], compressed(LAYERS[1], "gzip"), *LAYERS[2:]]
    engine.script.archive = Archive(layers=layers, config=image_config(LAYERS))
    by_kernel(imgfs, "img", name="first")
    until(lambda: list(imgfs.cache.glob("saved/*/*.erofs.seal")), "the metadata are cached")
    until(lambda: not imgfs.processes(), "all is written")
    for path in imgfs.cache.glob("saved/*/*.tar*"):
        path.unlink()
    assert kind(imgfs.mount("img")) == "fuse.imgfs"
    assert list(imgfs.cache.glob("saved/*/*.tar*")) == []


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(
    "options", [["-o", "uid=5"], ["-o", "transform_symlinks"], ["--no-trees"], ["-o", "allow_other"]]
)
def test_metadata_of_other_options_are_not_used(imgfs: Bench, options: list[str]) -> None:
    until_kernel(imgfs.mount("img", "--index"))
    until(lambda: list(imgfs.cache.glob("saved/*/*.erofs.seal")), "the metadata are cached")
    other = imgfs.mountpoint("other")
    assert imgfs.run("mount", "--log-file", imgfs.log, *options, "img", other).status == 0
    assert kind(other) == "fuse.imgfs"


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("damage", ["cut", "zeros", "other bytes", "no seal"])
def test_damaged_metadata_are_written_again(imgfs: Bench, damage: str) -> None:
    first = by_kernel(imgfs, "img", name="first")
    shown = tree(first)
    (seal,) = until(lambda: list(imgfs.cache.glob("saved/*/*.erofs.seal")), "the metadata are cached")
    until(lambda: not imgfs.processes(), "all is written")
    assert imgfs.run("umount", first).status == 0
    metadata = seal.with_suffix("")
    match damage:
        case "cut":
            os.truncate(metadata, 1024)
        case "zeros":
            metadata.write_bytes(bytes(metadata.stat().st_size))
        case "other bytes":  # under a seal that fits, as a disk that errs leaves them
            metadata.write_bytes(metadata.read_bytes().replace(b"schemaVersion", b"SchemaVersion"))
            seal_again(seal, metadata)
        case _:
            seal.unlink()
    mountpoint = imgfs.mountpoint("second")
    assert imgfs.run("mount", "--driver", "erofs", "img", mountpoint).status == 0
    assert tree(mountpoint) == shown


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("driver", ["auto", "erofs"])
def test_in_the_foreground_a_signal_unmounts_it(
    imgfs: Bench, spooled: Path, driver: str, number: signal.Signals
) -> None:
    mountpoint = imgfs.mountpoint()
    process = imgfs.foreground(spooled, "--driver", driver, "--index", at=mountpoint)
    until_kernel(mountpoint)
    with (mountpoint / "config").open("rb"):
        process.send_signal(number)
        assert process.wait(20) == 0
        assert mounted_below(imgfs.folder) == []


def test_a_signal_to_a_process_whose_files_are_still_open_unmounts_the_kernel_mount(
    imgfs: Bench, spooled: Path
) -> None:
    mountpoint = imgfs.mount(spooled)
    process = imgfs.serving(mountpoint)
    with (mountpoint / "manifest.json").open("rb"):
        os.listdir(mountpoint / "rootfs")
        until_kernel(mountpoint)
        os.kill(process, signal.SIGTERM)
        until(lambda: not imgfs.processes(), "the process ends")
    assert mounted_below(imgfs.folder) == []


def test_in_the_foreground_it_ends_when_it_is_unmounted(imgfs: Bench, spooled: Path) -> None:
    mountpoint = imgfs.mountpoint()
    process = imgfs.foreground(spooled, "--driver", "erofs", at=mountpoint)
    assert imgfs.run("umount", mountpoint).status == 0
    assert process.wait(20) == 0


@pytest.mark.parametrize("driver", ["auto", "erofs"])
def test_in_the_foreground_it_sleeps_until_a_mount_or_a_signal_changes_something(
    imgfs: Bench, spooled: Path, driver: str
) -> None:
    if os.uname().machine != "x86_64":
        give_up("knows the number of poll(2) on x86_64 alone")
    mountpoint = imgfs.mountpoint()
    process = imgfs.foreground(spooled, "--driver", driver, "--index", at=mountpoint)
    until_kernel(mountpoint)
    call = Path(f"/proc/{process.pid}/syscall")
    without_end = re.compile(r"7 0x[0-9a-f]+ 0x2 0xffffffff")
    until(lambda: without_end.match(call.read_text()), "it polls two files")
    with tmpfs(imgfs.mountpoint("other")):
        until(lambda: without_end.match(call.read_text()), "it polls again")
    assert imgfs.run("umount", mountpoint).status == 0
    assert process.wait(20) == 0


def test_what_is_cached_does_not_wait_for_the_end_of_a_mount_in_the_foreground(imgfs: Bench, engine: Engine) -> None:
    mountpoint = imgfs.mountpoint()
    process = imgfs.foreground("img", "--host", engine.host, "--driver", "erofs", at=mountpoint)
    until(lambda: list(imgfs.cache.glob("saved/*/*.erofs.seal")), "the metadata are cached")
    assert process.poll() is None


def test_in_the_foreground_a_signal_says_why_it_cannot_unmount(imgfs: Bench, spooled: Path) -> None:
    mountpoint = imgfs.mountpoint()
    process = imgfs.foreground(spooled, "--driver", "erofs", at=mountpoint)
    with tmpfs(mountpoint):
        process.terminate()
        assert process.wait(20) == 9
    assert process.communicate()[1] == f"imgfs: cannot unmount {mountpoint}: something else is there by now\n"


def test_its_end_leaves_other_mounts_alone_that_have_its_numbers_by_then(imgfs: Bench, spooled: Path) -> None:
    mountpoint = imgfs.mountpoint()
    process = imgfs.foreground(spooled, at=mountpoint)
    old = mount_at(str(mountpoint))
    assert old is not None
    os.listdir(mountpoint / "rootfs")
    until_kernel(mountpoint)
    # The kernel gives the lowest free numbers, so that one of a few mounts has those of the FUSE mount.
    others = [imgfs.mountpoint(f"other{number}") for number in range(8)]
    for other in others:
        imgfs.mount(spooled, "--driver", "fuse", at=other)
        new = mount_at(str(other))
        if new is not None and (new.id, new.connection) == (old.id, old.connection):
            break
    process.terminate()
    assert process.wait(20) == 0
    assert all(kind(path) == "fuse.imgfs" for path in others[: others.index(other) + 1])
