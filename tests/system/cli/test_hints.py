"""What to do next: every error whose remedy is known names it, and here each happens for real."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.builders import Archive, layer, two_images
from tests.support.fake_engine import Engine, fake_engine, json_answer
from tests.support.file_systems import tmpfs
from tests.support.layouts import Layout
from tests.support.mounts import Bench, Finished
from tests.support.requirements import need
from tests.support.users import USER

IN_A_CONTAINER = "in a container: run it with --device /dev/fuse --cap-add SYS_ADMIN"
NO_DEVICES = "mount -t tmpfs tmpfs /dev && mknod -m 666 /dev/null c 1 3"
NO_HELPER = "mount --bind /dev/null $(command -v fusermount3)"
ASK = "docker://img asks the registry, without an engine"
UNPRIVILEGED = ("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin")


def _fails(imgfs: Bench, status: int, message: str, *arguments: str | Path) -> None:
    done = imgfs.run(*arguments)
    assert done == Finished(status, "", f"imgfs: {message}\n")
    imgfs.nothing_left()


def _where(imgfs: Bench, setup: str, *before: str) -> None:
    """Let the command run where *setup* has changed the mounts, with *before* it."""
    need("unshare", "setpriv")
    imgfs.command = ("unshare", "--mount", "sh", "-c", f'{setup} && exec "$@"', "sh", *before, *imgfs.command)


def _cannot_mount(imgfs: Bench, why: str, *options: str) -> None:
    mountpoint = imgfs.folder / "mnt"
    mountpoint.mkdir()
    os.chown(mountpoint, USER, USER)
    archive = Archive().write(imgfs.folder / "image.tar")
    said = f"cannot mount on {mountpoint}: {why}"
    _fails(imgfs, 9, said, "mount", "--log-file", "/dev/null", *options, archive, mountpoint)


def test_without_the_device(imgfs: Bench) -> None:
    _where(imgfs, NO_DEVICES)
    _cannot_mount(imgfs, f"device not found, try 'modprobe fuse' first; {IN_A_CONTAINER}")


def test_without_the_right_to_mount(imgfs: Bench) -> None:
    _where(imgfs, "true", *UNPRIVILEGED)
    _cannot_mount(imgfs, f"mount failed: Operation not permitted; {IN_A_CONTAINER}")


def test_without_the_program_that_mounts_for_users(imgfs: Bench) -> None:
    # No file at all is what one mostly has; this is as near as a test comes that leaves the machine alone.
    _where(imgfs, NO_HELPER, *UNPRIVILEGED)
    _cannot_mount(imgfs, "failed to exec fusermount3: Permission denied; install fuse3")


def test_root_needs_no_program_to_unmount(imgfs: Bench) -> None:
    mountpoint = imgfs.mount(Archive().write(imgfs.folder / "image.tar"))
    assert imgfs.run("umount", mountpoint, PATH=imgfs.folder) == Finished(0, "", "")


def test_a_user_without_the_program_that_unmounts(user: Bench) -> None:
    mountpoint = user.mountpoint()
    os.chown(mountpoint, USER, USER)
    user.mount(Archive().write(user.folder / "image.tar"), at=mountpoint)
    program = shutil.which(user.command[0])
    assert program is not None
    user.command = (program, *user.command[1:])
    done = user.run("umount", mountpoint, PATH=user.folder)
    assert done == Finished(9, "", "imgfs: cannot run fusermount3: No such file or directory; install fuse3\n")


def test_a_user_on_a_directory_of_root(user: Bench) -> None:
    mountpoint = user.mountpoint()
    archive = Archive().write(user.folder / "image.tar")
    said = f"cannot mount on {mountpoint}: user has no write access to mountpoint {mountpoint}"
    _fails(user, 9, f"{said}; choose a directory of your own", "mount", "--log-file", user.log, archive, mountpoint)


def test_a_user_whose_device_is_roots(user: Bench) -> None:
    _where(user, "mount --bind $IMGFS_TESTS_DEVICE /dev/fuse")
    device = user.folder / "fuse"
    os.mknod(device, 0o600 | 0o020000, os.stat("/dev/fuse").st_rdev)
    user.environment["IMGFS_TESTS_DEVICE"] = str(device)
    hint = "become root, or have root chmod 666 /dev/fuse"
    _cannot_mount(user, f"failed to open /dev/fuse: Permission denied; {hint}", "--no-cache")


@pytest.fixture(name="engine")
def engine_on_a_socket(imgfs: Bench) -> Iterator[Engine]:
    """Give an engine that has no image."""
    with fake_engine(socket=imgfs.folder / "engine.sock") as engine:
        engine.script.inspect = json_answer({"message": "no such image"}, 404)
        yield engine


def test_a_socket_of_roots(user: Bench) -> None:
    path = user.folder / "docker.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        path.chmod(0o600)
        host = f"unix://{path}"
        said = f"cannot reach an engine at {host}: Permission denied; become root, or join the group docker; {ASK}"
        _fails(user, 3, said, "ls", "-H", host, "img")


def test_a_socket_of_roots_podman(user: Bench) -> None:
    path = user.folder / "podman.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        path.chmod(0o600)
        host = f"unix://{path}"
        own = f"unix:///run/user/{USER}/podman/podman.sock"
        hint = f"become root, or name your own with --host {own}"
        said = f"cannot reach an engine at {host}: Permission denied; {hint}; {ASK}"
        _fails(user, 3, said, "ls", "-H", host, "img")


@pytest.mark.parametrize(
    ("host", "start"),
    [
        ("unix:///run/podman/no.sock", "systemctl start podman.socket"),
        ("unix:///run/user/4242/podman/podman.sock", "systemctl --user start podman.socket"),
    ],
)
def test_a_podman_that_does_not_listen(imgfs: Bench, host: str, start: str) -> None:
    hint = f"start it with {start}, or name another engine with --host"
    said = f"cannot reach an engine at {host}: No such file or directory; {hint}; {ASK}"
    _fails(imgfs, 3, said, "ls", "-H", host, "img")


def test_where_there_is_podman_and_no_docker(imgfs: Bench) -> None:
    _where(imgfs, "mount -t tmpfs tmpfs /run && mkdir /run/podman && touch /run/podman/podman.sock")
    host = "unix:///run/none.sock"
    hint = "start docker, or take podman's images with --host unix:///run/podman/podman.sock"
    said = f"cannot reach an engine at {host}: No such file or directory; {hint}; {ASK}"
    _fails(imgfs, 3, said, "ls", "-H", host, "img")


@pytest.mark.parametrize("name", ["sha256:abc", "0123456789ab", "localhost/app:1"])
def test_no_registry_has_what_only_an_engine_can_have(imgfs: Bench, name: str) -> None:
    said = "cannot reach an engine at unix:///run/none.sock: No such file or directory; "
    hint = "start docker, or name another engine with --host or --context"
    _where(imgfs, "mount -t tmpfs tmpfs /run")
    _fails(imgfs, 3, said + hint, "ls", "-H", "unix:///run/none.sock", name)


def test_an_image_that_was_not_pulled(imgfs: Bench, engine: Engine) -> None:
    said = f"no image img:1 in the engine at {engine.host}"
    _fails(
        imgfs,
        4,
        f"{said}; docker pull img:1 fetches it, docker://img:1 needs no pull",
        "ls",
        "-H",
        engine.host,
        "img:1",
    )


@pytest.mark.parametrize("image_id", ["sha256:abc", "ab" * 32])
def test_an_id_cannot_be_pulled(imgfs: Bench, engine: Engine, image_id: str) -> None:
    said = f"no image {image_id} in the engine at {engine.host}"
    _fails(imgfs, 4, f"{said}; docker image ls lists what it has", "ls", "-H", engine.host, image_id)


def test_a_file_that_was_taken_for_an_image(imgfs: Bench, engine: Engine) -> None:
    Archive().write(imgfs.folder / "image")
    said = f"no image image in the engine at {engine.host}"
    _fails(imgfs, 4, f"{said}; write ./image for the file of that name", "ls", "-H", engine.host, "image")
    (imgfs.folder / "b" / "oci").mkdir(parents=True)
    said = f"no image b/oci:v2 in the engine at {engine.host}"
    _fails(imgfs, 4, f"{said}; write ./b/oci:v2 for the directory of that name", "ls", "-H", engine.host, "b/oci:v2")
    why = "bad reference 'A b': a name has no ' '; write './A b' for the file of that name"
    Archive().write(imgfs.folder / "A b")
    _fails(imgfs, 2, why, "ls", "A b")


def test_images_with_similar_names_are_named(imgfs: Bench, engine: Engine) -> None:
    names = ["ux-app:v1", "ux-app:v2", "localhost/nginx:1", "evil\x1b:1"]
    engine.script.images = json_answer([{"RepoTags": names}, {"RepoTags": None}, 7])
    at = f"in the engine at {engine.host}"
    for name, hint in (
        ("ux-app", "there are ux-app:v1, ux-app:v2"),
        ("ux-app:v3", "there are ux-app:v1, ux-app:v2"),
        ("ux-ap", "there are ux-app:v1, ux-app:v2"),
        ("nginx", "there is localhost/nginx:1"),
        ("redis", "docker pull redis fetches it, docker://redis needs no pull"),
    ):
        _fails(imgfs, 4, f"no image {name} {at}; {hint}", "ls", "-H", engine.host, name)


def test_the_socket_of_containerd(imgfs: Bench) -> None:
    path = imgfs.folder / "containerd.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))  # nobody listens; the engine's own containerd answers in no words either
        host = f"unix://{path}"
        way = "nerdctl save -o image.tar NAME, or ctr images export image.tar NAME, and give ./image.tar"
        why = f"that is containerd's own socket, which has no Docker API; save the image with {way}"
        _fails(imgfs, 3, f"cannot use {host}: {why}", "ls", "-H", host, "img")


def test_who_keeps_a_mount_busy(imgfs: Bench) -> None:
    archive = Archive([layer({"etc/motd": b"hello\n"})]).write(imgfs.folder / "image.tar")
    mountpoint = imgfs.mount(archive, at=imgfs.mountpoint("m x"))
    with subprocess.Popen(["sleep", "60"], cwd=mountpoint / "rootfs" / "etc") as process:
        try:
            done = imgfs.run("umount", mountpoint)
        finally:
            process.kill()
    by = f"in use by sleep ({process.pid}): {mountpoint}/rootfs/etc"
    said = f"imgfs: cannot unmount {mountpoint}: {by}; close it, or imgfs umount -l '{mountpoint}'\n"
    assert done == Finished(9, "", said)
    assert imgfs.run("umount", mountpoint) == Finished(0, "", "")


def test_a_command_in_a_hint_can_be_pasted(imgfs: Bench) -> None:
    missing = imgfs.folder / "it's\x1b new"
    hint = f"mkdir -p $'{imgfs.folder}/it\\'s\\x1b new' first"
    said = f"cannot mount on {imgfs.folder}/it's\\x1b new: No such file or directory; {hint}"
    archive = Archive().write(imgfs.folder / "image.tar")
    _fails(imgfs, 9, said, "mount", "--log-file", imgfs.log, archive, missing)
    subprocess.run(["bash", "-c", hint.removesuffix(" first")], check=True)
    assert missing.is_dir()


def test_several_images_in_a_pipe(imgfs: Bench) -> None:
    archive = imgfs.folder / "two.tar"
    archive.write_bytes(two_images())
    with archive.open("rb") as pipe:
        done = imgfs.run("inspect", "-", stdin=pipe.fileno())
    hint = "choose with docker-archive:-:REF or :@INDEX from @0 (a:1); @1 (b:1, b:2)"
    assert done == Finished(4, "", f"imgfs: standard input holds 2 images; {hint}\n")
    with archive.open("rb") as pipe:
        assert imgfs.run("inspect", "docker-archive:-:b:2", stdin=pipe.fileno()).status == 0


def test_several_images_of_a_layout_in_a_pipe(imgfs: Bench) -> None:
    archive = imgfs.folder / "two.tar"
    layout = Layout()
    archive.write_bytes(layout.list(layout.image(), "v1").list(layout.image(compression="gzip"), "v2").tar())
    with archive.open("rb") as pipe:
        done = imgfs.run("ls", "-", stdin=pipe.fileno())
    assert (done.status, "choose one with oci-archive:-:REF; there are v1" in done.err) == (4, True), done
    with archive.open("rb") as pipe:
        assert imgfs.run("ls", "oci-archive:-:v2", stdin=pipe.fileno()).status == 0


def test_a_full_temporary_directory(imgfs: Bench) -> None:
    archive = Archive().write(imgfs.folder / "image.tar")
    packed = imgfs.folder / "image.tar.gz"
    subprocess.run(["gzip", "-k", archive], check=True)
    with tmpfs(imgfs.mountpoint("small"), "4k") as small:
        done = imgfs.run("ls", "--no-cache", "--tmpdir", small, packed)
    assert (done.status, done.out) == (8, "")
    assert done.err.startswith("imgfs: not enough space for ")
    assert done.err.endswith("; choose another directory with --tmpdir\n")
