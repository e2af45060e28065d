"""Kernel mounts of EROFS images: what is mounted, how it is shown, and that nothing is left."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fusefs.mount.kernel.attach import check_contents
from fusefs.mount.kernel.erofs import mount_erofs
from fusefs.mount.kernel.loop import bind_loop_device
from fusefs.mount.kernel.support import Backing, KernelUnable
from fusefs.mount.mountinfo import mount_at
from fusefs.mount.syscalls import FSCONFIG_SET_STRING, MNT_DETACH, fsconfig, fsmessages, fsopen, umount2
from tests.programs import loop_binder
from tests.support.erofs_images import BLOCK, ErofsImage, bound_loop_devices, open_files
from tests.support.erofs_mounts import mounted_on, need_kernel_mounts
from tests.support.file_systems import tmpfs
from tests.support.folders import new_folder
from tests.support.processes import mounts_at, until

DATA = bytes(range(256)) * 16
"""A device of eight blocks."""
IMAGE = ErofsImage({b"a": b"inline"}, {b"b": (1, 1000)}, len(DATA) // BLOCK, {b"imgfs.image": b"nginx"})
KNOWN = [(b"a", b"inline"), (b"b", DATA[BLOCK : BLOCK + 1000])]


@pytest.fixture(name="folder")
def disk_folder() -> Iterator[Path]:
    """Give a folder on a disk; no mount is left in the end."""
    need_kernel_mounts()
    folder = new_folder("kernel", 0o755)
    try:
        yield folder
        assert mounts_at(folder) == []
    finally:
        for mount in mounts_at(folder):
            umount2(os.fsencode(mount.path), MNT_DETACH)
        shutil.rmtree(folder)


@pytest.fixture(name="mountpoint")
def mountpoint_folder(folder: Path) -> Path:
    """Give an empty directory."""
    mountpoint = folder / "mnt"
    mountpoint.mkdir()
    return mountpoint


@pytest.fixture(name="memory")
def memory_folder() -> Iterator[Path]:
    """Give a folder whose files cannot be EROFS metadata, so that loop devices are used; none is left in the end."""
    need_kernel_mounts()
    folder = new_folder("kernel", 0o755)
    try:
        with tmpfs(folder, "32m"):
            yield folder
            until(lambda: not bound_loop_devices(folder), "all loop devices are free")
    finally:
        folder.rmdir()


@pytest.fixture(name="place", params=Backing)
def backing_folder(request: pytest.FixtureRequest, folder: Path, memory: Path) -> Path:
    """Give a folder whose files make the mount read files, or loop devices."""
    need_kernel_mounts(request.param)
    return folder if request.param is Backing.FILE else memory


def test_the_contents_are_those_of_metadata_and_device(mountpoint: Path, place: Path, folder: Path) -> None:
    # Once it is mounted, only the mount has the files.
    with mounted_on(mountpoint, IMAGE, "nginx", DATA, place=place) as mounted:
        assert {path.name.encode(): path.read_bytes() for path in mountpoint.iterdir()} == dict(KNOWN)
        assert os.getxattr(mountpoint, "user.imgfs.image") == b"nginx"
        assert (mounted.file_system, mounted.source) == ("erofs", "nginx")
        assert mounted.options >= {"ro", "nosuid", "nodev"}
        assert "ro" in mounted.super_options
        assert len(bound_loop_devices(place)) == (0 if place == folder else 2)


def test_flags_are_those_of_the_mount(mountpoint: Path) -> None:
    flags = ["noexec", "noatime", "allow_other", "noexec"]
    with mounted_on(mountpoint, ErofsImage(), "nginx", flags=flags) as mounted:
        assert mounted.options == {"ro", "nosuid", "nodev", "noexec", "noatime"}


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        *((name, name) for name in ("nginx", "docker.io/library/nginx:1@sha256:0", "./x.tar", "../x/../y", "a b\n#\\")),
        *((name, name) for name in ("docker-archive:/srv/x.tar:nginx:1", "/srv/x y.tar", "/var/tmp/a/b", "é\udcff")),
        *((name, name) for name in ("x" * 255, "/tmp/" + "x/" * 124 + "z")),
        ("oci:dir/", "oci:dir"),
        ("x" + "é" * 127 + "/y", "…" + "é" * 125 + "/y"),
        *((name, "imgfs") for name in ("", "/", "/x.tar", "/proc/1/x", "/missing/x.tar", ".", "..")),
        *((name, "imgfs") for name in ("/srv/../etc/x.tar", "/./srv/x.tar", "//srv/x.tar", "/srv/./x", "/../x/y")),
    ],
)
def test_the_source_is_the_image_argument(mountpoint: Path, name: str, shown: str) -> None:
    with mounted_on(mountpoint, ErofsImage(), name) as mounted:
        assert mounted.source == shown
    assert not os.path.lexists(name) or os.path.isdir(name)


def test_naming_the_source_changes_nothing_for_this_process(folder: Path) -> None:
    def state() -> tuple[object, ...]:
        root = [line for line in Path("/proc/self/mountinfo").read_bytes().split(b"\n") if b" / / " in line]
        return os.getcwd(), os.readlink("/proc/self/ns/mnt"), os.readlink("/proc/self/root"), root, os.listdir("/srv")

    before = state()
    with open_files(folder, ErofsImage().metadata()) as (metadata,):
        for name in ("x/y", "/srv/x"):
            os.close(mount_erofs(metadata, [], name))
    assert state() == before


def test_a_mount_that_is_not_attached_ends_with_its_descriptor(memory: Path) -> None:
    with open_files(memory, IMAGE.metadata(), DATA) as (metadata, device):
        mount = mount_erofs(metadata, [device], "nginx")
    assert len(bound_loop_devices(memory)) == 2
    check_contents(mount, KNOWN)
    os.close(mount)
    until(lambda: not bound_loop_devices(memory), "the loop devices are free")


def test_contents_are_checked(folder: Path) -> None:
    with open_files(folder, IMAGE.metadata(), DATA) as (metadata, device):
        mount = mount_erofs(metadata, [device], "nginx")
        check_contents(mount, [*KNOWN, (b"a", b"inl"), (b"a", b"")])
        for known, message in (
            ((b"a", b"inlinf"), "a has other bytes in the kernel mount"),
            ((b"a", b"inline!"), "a has other bytes in the kernel mount"),
            ((b"c\n", b""), r"c\n cannot be read through the kernel mount: No such file or directory"),
        ):
            with pytest.raises(KernelUnable) as caught:
                check_contents(mount, [*KNOWN, known])
            assert str(caught.value) == message
        os.ftruncate(device, 0)  # what is in the page cache of the mount stays there
        check_contents(mount, KNOWN)
        os.close(mount)
        mount = mount_erofs(metadata, [device], "nginx")
        with pytest.raises(KernelUnable, match=r"^b cannot be read through the kernel mount: Input/output error$"):
            check_contents(mount, KNOWN)
        os.close(mount)


@pytest.mark.parametrize("count", [0, 2])
def test_the_number_of_devices_has_to_be_that_of_the_metadata(folder: Path, count: int) -> None:
    with (
        open_files(folder, IMAGE.metadata(), DATA) as (metadata, device),
        pytest.raises(KernelUnable, match=f"^the EROFS metadata have 1 devices, {count} were given$"),
    ):
        mount_erofs(metadata, [device] * count, "nginx")


@pytest.mark.parametrize("size", [0, 1151, 2000])
def test_files_that_are_no_metadata_are_refused(folder: Path, size: int) -> None:
    with open_files(folder, bytes(size)) as (file,), pytest.raises(KernelUnable, match=r"have no superblock$"):
        mount_erofs(file, [], "nginx")


def test_a_refusal_of_the_kernel_has_its_reason(place: Path) -> None:
    image = bytearray(IMAGE.metadata())
    image[1024 + 12] = 8  # blocks of 256 bytes
    with open_files(place, bytes(image), DATA) as (metadata, device), pytest.raises(KernelUnable) as caught:
        mount_erofs(metadata, [device], "nginx")
    assert str(caught.value) == "the kernel refuses the EROFS mount: Invalid argument; see dmesg"


def test_what_the_kernel_says_of_an_option_is_read() -> None:
    need_kernel_mounts()
    context = fsopen(b"erofs")
    for value in (b"a", b"b"):
        with pytest.raises(OSError, match="Invalid argument"):
            fsconfig(context, FSCONFIG_SET_STRING, b"nonsense", value)
    assert fsmessages(context) == ["erofs: Unknown parameter 'nonsense'"] * 2
    assert fsmessages(context) == []
    os.close(context)


def test_a_device_that_is_no_file_leaves_no_loop_device(memory: Path) -> None:
    reader, writer = os.pipe()
    with (
        open_files(memory, IMAGE.metadata()) as (metadata,),
        pytest.raises(KernelUnable, match=r"^cannot set up /dev/loop[0-9]+: Invalid argument$"),
    ):
        mount_erofs(metadata, [reader], "nginx")
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize(
    ("commands", "message"),
    [
        ("true", "no loop devices: cannot open /dev/loop-control: No such file or directory"),
        ("mknod /dev/loop-control c 10 237", "cannot open /dev/loop[0-9]+: No such file or directory"),
        (
            "mknod /dev/loop-control c 10 237 && for n in $(seq 0 99); do mknod /dev/loop$n b 254 99; done",
            "(cannot open /dev/loop[0-9]+: No such device or address|/dev/loop[0-9]+ is not a loop device)",
        ),
    ],
)
def test_a_machine_without_loop_devices_is_told(memory: Path, commands: str, message: str) -> None:
    program = "import sys; from fusefs.mount.kernel.erofs import mount_erofs; mount_erofs(int(sys.argv[1]), [], 'x')"
    script = f'mount -t tmpfs t /dev && {commands} && exec "$@"'
    with open_files(memory, ErofsImage().metadata()) as (metadata,):
        words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]
        words += [sys.executable, "-c", program, str(metadata)]
        done = subprocess.run(words, capture_output=True, text=True, check=False, pass_fds=[metadata])
    assert re.search(f"KernelUnable: {message}$", done.stderr.splitlines()[-1])


@pytest.mark.parametrize(
    "wrapper", [("setpriv", "--bounding-set=-all", "--"), ("unshare", "--user", "--map-root-user", "--mount", "--")]
)
def test_a_process_without_rights_is_told(folder: Path, wrapper: tuple[str, ...]) -> None:
    program = "import sys; from fusefs.mount.kernel.erofs import mount_erofs; mount_erofs(int(sys.argv[1]), [], 'x')"
    with open_files(folder, ErofsImage().metadata()) as (metadata,):
        words = [*wrapper, sys.executable, "-c", program, str(metadata)]
        done = subprocess.run(words, capture_output=True, text=True, check=False, pass_fds=[metadata])
    assert done.stderr.splitlines()[-1].endswith("KernelUnable: only root of the machine may mount EROFS")


def test_pages_that_a_killed_reader_asked_for_are_right_for_the_next_one(place: Path) -> None:
    data = os.urandom(16 << 20)
    image = ErofsImage(stored={b"big": (0, len(data))}, blocks=len(data) // BLOCK)
    program = "import sys\nwith open(sys.argv[1], 'rb') as file:\n  while file.read(1 << 20): print(flush=True)"
    with open_files(place, image.metadata(), data) as (metadata, device):
        os.fsync(device)
        for lines in range(12):
            os.posix_fadvise(device, 0, 0, os.POSIX_FADV_DONTNEED)
            mount = mount_erofs(metadata, [device], "nginx")
            words = [sys.executable, "-c", program, f"/proc/{os.getpid()}/fd/{mount}/big"]
            with subprocess.Popen(words, stdout=subprocess.PIPE) as reader:
                assert reader.stdout is not None
                for _ in range(lines):
                    reader.stdout.readline()
                reader.kill()
            check_contents(mount, [(b"big", data)])
            os.close(mount)


def test_the_capability_that_the_process_of_a_mount_keeps_is_enough(place: Path) -> None:
    program = (
        "import sys\n"
        "from fusefs.mount.kernel.attach import check_contents\n"
        "from fusefs.mount.kernel.erofs import mount_erofs\n"
        "for name in ('nginx', '/srv/x.tar'):\n"
        "    check_contents(mount_erofs(int(sys.argv[1]), [int(sys.argv[2])], name), [(b'a', b'inline')])\n"
    )
    with open_files(place, IMAGE.metadata(), DATA) as files:
        words = ["setpriv", "--bounding-set=-all,+sys_admin", "--", sys.executable, "-c", program, *map(str, files)]
        subprocess.run(words, check=True, pass_fds=files)


def test_a_loop_device_has_the_blocks_of_its_file_and_cannot_be_written(memory: Path) -> None:
    with open_files(memory, DATA + b"x" * 511) as (file,):
        device = bind_loop_device(file)
        (name,) = bound_loop_devices(memory)
        assert os.pread(device, 10_000, 0) == DATA
        queue = Path(f"/sys/block/{name}/queue")
        assert (queue / "logical_block_size").read_text() == "512\n"
        assert Path(f"/sys/block/{name}/ro").read_text() == "1\n"
        assert Path(f"/sys/block/{name}/loop/autoclear").read_text() == "1\n"
        assert Path(f"/sys/block/{name}/loop/dio").read_text() == "0\n"
        os.close(device)


def test_processes_that_bind_loop_devices_at_once_get_one_each(memory: Path) -> None:
    with open_files(memory, DATA) as (file,):
        words = [sys.executable, loop_binder.__file__, str(file), "6"]
        binders = [
            subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[file], text=True)
            for _ in range(4)
        ]
        outputs = [binder.stdout.readline().split() for binder in binders if binder.stdout]
        assert sorted(word for output in outputs for word in output) == sorted(bound_loop_devices(memory))
        assert len(bound_loop_devices(memory)) == 24
        binders[0].send_signal(signal.SIGKILL)
        for binder in binders[1:]:
            binder.communicate()
        binders[0].communicate()


def test_a_killed_process_leaves_no_loop_device_and_no_mount(memory: Path) -> None:
    program = (
        "import sys\n"
        "from fusefs.mount.kernel.erofs import mount_erofs\n"
        "while True:\n"
        "    print(flush=True)\n"
        "    mount_erofs(int(sys.argv[1]), [int(sys.argv[2])], 'x')\n"
    )
    with open_files(memory, IMAGE.metadata(), DATA) as (metadata, device):
        words = [sys.executable, "-c", program, str(metadata), str(device)]
        for lines in range(1, 13):
            process = subprocess.Popen(words, stdout=subprocess.PIPE, pass_fds=[metadata, device])
            assert process.stdout is not None
            for _ in range(lines):
                process.stdout.readline()
            process.kill()
            process.communicate()


def test_the_mount_table_lists_it_as_a_kernel_mount(mountpoint: Path) -> None:
    with mounted_on(mountpoint, ErofsImage(), "nginx"):
        found = mount_at(str(mountpoint))
        assert found is not None
        assert found[:4] == (str(mountpoint), "erofs", os.minor(mountpoint.stat().st_dev), "nginx")
        assert (found.is_fuse, found.owner, found.is_foreign(0)) == (False, None, False)
