"""How mount(8) calls imgfs, and what is a command and what an image."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fusefs.cli.parsing.mount8 import is_helper, mount_status, parse_call
from fusefs.cli.parsing.program import COMMANDS
from fusefs.errors import UsageError
from tests.support.builders import Archive
from tests.support.grammar import parsers
from tests.support.mounts import COMMAND, Bench, Finished, mounted_below, the_mount
from tests.support.namespaces import Namespace, install


def test_the_commands_are_those_of_the_parser() -> None:
    assert {name.split()[1] for name in parsers() if " " in name} | {"__complete"} == COMMANDS


@pytest.mark.parametrize(
    "line",
    [
        "nginx /mnt",
        "nginx:latest /mnt/img -o ro,dev,suid",
        "./x.tar mnt -f --verify",
        "- /mnt",
        "ls /mnt -o rw,dev,suid",
        "list /mnt -o rw,dev,suid",
        "report /mnt -o rw,dev,suid",
        "umount /mnt -o rw,dev,suid",
        "unmount /mnt -oro",
        "unmount@sha256:0 /nowhere",
        "a/unmount /nowhere",
        "nginx /",
    ],
)
def test_an_image_and_a_directory_without_a_command_are_to_be_mounted(line: str) -> None:
    arguments = parse_call("/usr/local/bin/imgfs", line.split())
    assert [arguments.command, arguments.image, arguments.mountpoint] == ["mount", *line.split()[:2]]
    assert arguments.as_helper


@pytest.mark.parametrize(
    "line",
    [
        "mount /mnt -o rw,dev,suid",
        "list /mnt",
        "report /mnt -o rw.html",
        "umount /mnt",
        "ls /mnt -l",
        "ls nginx -o x",
        "mount nginx /mnt -o ro",
        "diff nginx other",
        "list",
        "nginx",
        "nginx --help",
        "unmount /",
        "insepct /",
        "history /",
        "rm /",
        "nginx /nowhere",
        "nginx nowhere -f",
        "--version",
        "-f nginx",
        "",
    ],
)
def test_a_commands_word_is_a_command_except_where_none_could_be_meant(line: str) -> None:
    assert not is_helper("/usr/local/bin/imgfs", line.split())


@pytest.mark.parametrize("name", ["/sbin/mount.imgfs", "mount.fuse.imgfs"])
def test_called_by_its_name_the_first_word_is_an_image(name: str) -> None:
    arguments = parse_call(name, ["mount", "/mnt", "-n", "-s", "-o", "ro,noexec", "-t", "imgfs"])
    assert (arguments.command, arguments.image, arguments.mountpoint) == ("mount", "mount", "/mnt")
    assert arguments.options == ["sloppy", "ro", "noexec"]
    assert (arguments.as_helper, arguments.fake, arguments.verbose, arguments.foreground) == (True, False, False, False)


def test_flags_of_mount_8_have_their_own_meaning() -> None:
    arguments = parse_call("/sbin/mount.imgfs", ["-fv", "nginx", "/mnt"])
    assert (arguments.fake, arguments.verbose, arguments.foreground) == (True, True, False)
    arguments = parse_call("imgfs", ["nginx", "/mnt", "-fv"])
    assert (arguments.fake, arguments.verbose, arguments.foreground) == (False, True, True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nginx", "/mnt", "-x"], "option -x not recognized; mount(8) passes -s, -f, -n, -v, -o, -t"),
        (["nginx", "/mnt", "-o"], "option -o requires argument; mount(8) passes -s, -f, -n, -v, -o, -t"),
        (
            ["nginx", "/mnt", "-N", "/proc/1/ns/mnt"],
            "-N is not supported; use nsenter --mount=/proc/1/ns/mnt mount …",
        ),
        (["nginx"], "the following arguments are required: MOUNTPOINT; see imgfs mount --help"),
        ([], "the following arguments are required: IMAGE; see imgfs mount --help"),
    ],
)
def test_what_mount_8_does_not_pass_is_a_usage_error(words: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_call("mount.imgfs", words)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(0, 0), (1, 32), (2, 1), (3, 32), (4, 32), (5, 32), (6, 32), (7, 32), (8, 32), (9, 32), (130, 32)],
)
def test_the_status_is_1_for_usage_and_32_for_any_other_failure(ours: int, theirs: int) -> None:
    assert mount_status(ours) == theirs


def test_without_a_command_it_mounts_and_says_nothing(imgfs: Bench) -> None:
    archive = Archive().write(imgfs.folder / "image.tar")
    mountpoint = imgfs.mountpoint()
    done = imgfs.run(archive, mountpoint, "-o", f"rw,log-file={imgfs.log},dev,suid")
    assert done == Finished(0, "", "")
    assert the_mount(mountpoint).options == {"ro", "nosuid", "nodev", "relatime"}
    done = imgfs.run(archive, mountpoint)
    why = f"cannot mount on {mountpoint}: an image is mounted there; imgfs umount {mountpoint} first"
    assert done == Finished(32, "", f"imgfs: {why}\n")
    assert imgfs.run("mount", archive, mountpoint).status == 9


def test_it_mounts_with_nothing_in_the_environment(imgfs: Bench) -> None:
    # Without PATH, HOME and a search for programs.
    imgfs.command = ["/usr/bin/env", "-i", imgfs.marker, f"PYTHONPATH={os.environ.get('PYTHONPATH', '')}", COMMAND]
    archive = Archive().write(imgfs.folder / "image.tar")
    mountpoint = imgfs.mountpoint()
    places = f"cache-dir={imgfs.cache},tmpdir={imgfs.spool},log-file={imgfs.log}"
    assert imgfs.run(archive, mountpoint, "-o", places) == Finished(0, "", "")
    assert imgfs.run("umount", mountpoint) == Finished(0, "", "")
    assert mounted_below(mountpoint) == []


def test_a_bug_is_no_usage_error() -> None:
    script = "import fusefs.cli as cli; cli.parse_call = None; raise SystemExit(cli.main(['nginx', '/mnt']))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (32, "")
    assert done.stderr.startswith("Traceback (most recent call last):\n")


_LINKS = ("sbin/mount.imgfs", "usr/local/bin/imgfs")
_FILES = (
    "usr/local/lib/systemd/system/imgfs@.service",
    "usr/local/share/bash-completion/completions/imgfs",
    "usr/local/share/fish/vendor_completions.d/imgfs.fish",
    "usr/local/share/man/man1/imgfs.1",
    "usr/local/share/zsh/site-functions/_imgfs",
)
_PROGRAM = "usr/local/lib/imgfs"
_FOLDERS = ("usr", "usr/local", "usr/local/share", "usr/local/share/man")
"""The folders that were there before the installation."""


def _outside(folder: Path) -> list[Path]:
    """Return the files and links below *folder* that are not the program's own, sorted."""
    found = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return sorted(path for path in found if not path.is_relative_to(folder / _PROGRAM))


def test_an_installation_is_a_copy_that_every_user_can_run(installation: Path) -> None:
    assert _outside(installation) == sorted(installation / name for name in (*_LINKS, *_FILES))
    assert {os.readlink(installation / link) for link in _LINKS} == {f"/{_PROGRAM}/bin/imgfs"}
    program = installation / _PROGRAM
    assert (program / "bin/imgfs").read_text().splitlines()[0] == f"#!/{_PROGRAM}/bin/python -IS"
    modes = {path: path.stat().st_mode for path in installation.rglob("*") if not path.is_symlink()}
    assert [path for path, mode in modes.items() if mode & 0o044 != 0o044 or mode & 0o022] == []
    assert [path for path, mode in modes.items() if path.is_dir() and mode & 0o011 != 0o011] == []
    script = f"import fusefs; print(fusefs.__file__.startswith({str(program)!r}))"
    done = subprocess.run([program / "bin/python", "-I", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_another_user_runs_the_installed_command(imgfs: Bench, namespace: Namespace) -> None:
    archive = Archive().write(imgfs.folder / "image.tar")
    archive.chmod(0o644)
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "env", "-i", "HOME=/nonexistent")
    done = namespace.run(*nobody, "/usr/local/bin/imgfs", "inspect", "--no-cache", "--json", archive)
    assert (done.status, done.err) == (0, "")
    assert json.loads(done.out)["name"] == str(archive)


def test_a_second_installation_updates_the_files_and_uninstall_removes_all(installation: Path, tmp_path: Path) -> None:
    enabled = tmp_path / "etc/systemd/system/multi-user.target.wants/imgfs@mnt-img.service"
    enabled.parent.mkdir(parents=True)
    theirs = enabled.with_name("imgfs@theirs.service")
    theirs.symlink_to("/usr/lib/systemd/system/imgfs@.service")
    for path in ("usr/lib/imgfs", "var/cache/imgfs"):  # the Debian package, and the cache that it has in common
        (tmp_path / path).mkdir(parents=True)
    before = sorted([*tmp_path.rglob("*"), *(tmp_path / path for path in _FOLDERS[1:])])
    subprocess.run(["cp", "-a", f"{installation}/.", tmp_path], check=True)
    first = sorted(tmp_path.rglob("*"))
    enabled.symlink_to("/usr/local/lib/systemd/system/imgfs@.service")
    # A file that an earlier version installed, and this one does not.
    stale = tmp_path / "usr/local/share/man/man1/imgfs-old.1"
    stale.write_text("old")
    with (tmp_path / _PROGRAM / "installed-files").open("a") as list_of_files:
        list_of_files.write("/usr/local/share/man/man1/imgfs-old.1\n")
    said = install(tmp_path)
    assert sorted(tmp_path.rglob("*")) == sorted([*first, enabled])
    assert said.startswith(f"removed {stale}\ninstalled {tmp_path / _PROGRAM}\n")
    assert said.count(str(tmp_path)) == len([*_LINKS, *_FILES, _PROGRAM, stale])
    assert install(tmp_path, "--uninstall").count("removed") == len([*_LINKS, *_FILES, _PROGRAM, enabled])
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", [*_LINKS, _FILES[0]])
def test_install_overwrites_no_links_of_others(tmp_path: Path, name: str) -> None:
    mine = tmp_path / name
    mine.parent.mkdir(parents=True)
    mine.symlink_to("/root/.local/bin/imgfs")
    with pytest.raises(subprocess.CalledProcessError):
        install(tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_symlink() or not path.is_dir()] == [mine]
    assert os.readlink(mine) == "/root/.local/bin/imgfs"


@pytest.mark.parametrize("name", [_LINKS[0], _FILES[0], f"{_PROGRAM}/mine"])
def test_install_overwrites_nothing(tmp_path: Path, name: str) -> None:
    mine = tmp_path / name
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    for options in ((), ("--uninstall",)):
        with pytest.raises(subprocess.CalledProcessError):
            install(tmp_path, *options)
        assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == [mine]
        assert mine.read_text() == "mine"
