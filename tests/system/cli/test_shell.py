"""imgfs shell: commands in a throwaway container over an image, as root and as another user."""

import encodings
import os
import shutil
import signal
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.builders import Archive, compressed, image_config
from tests.support.changesets import About, changeset, device, file, folder, symlink
from tests.support.mounts import Bench
from tests.support.processes import descendants, until
from tests.support.readable import as_user
from tests.support.requirements import FUSE, ROOT, need
from tests.support.terminals import Terminal

BUSYBOX = Path(shutil.which("busybox") or "/bin/busybox")
APPLETS = ("sh", "cat", "chown", "id", "kill", "ls", "mknod", "readlink", "rm", "sleep", "stat", "test", "touch", "tty")
PASSWD = b"root:x:0:0::/root:/bin/sh\nweb:x:33:34::/srv:/bin/sh\n"
GROUP = b"root:x:0:\nweb:x:34:\nmore:x:40:root,web\n"


def image(folder_: Path, *, shell: bool = True, **config: object) -> Path:
    """Write an image with the programs of busybox."""
    programs = [file("bin/busybox", BUSYBOX.read_bytes(), About(mode=0o755))] if shell else [file("opt/x", b"x")]
    programs += [symlink(f"bin/{name}", "busybox") for name in APPLETS if shell]
    files = (
        folder("etc"),
        file("etc/passwd", PASSWD),
        file("etc/group", GROUP),
        file("etc/gone", b"g"),
        file("etc/odd", b"o", About(uid=33)),
        file("plain", b"no program"),
        file("foreign", b"\x7fELF\x02\x01\x01" + bytes(57), About(mode=0o755)),
        file("broken", b"#!/no/such/interpreter\n", About(mode=0o755)),
        device("null", "c", 1, 3, About(mode=0o666)),
        folder("srv", About(mode=0o755, uid=33)),
    )
    layers = [changeset(*programs, *files)]
    document = {"Env": ["PATH=/bin", "A=b c"]} | config
    return Archive(layers, config=image_config(layers, config=document)).write(folder_ / "image.tar")


@pytest.fixture(name="root")
def roots_bench(imgfs: Bench) -> Bench:
    """A bench of root, with an image."""
    need(ROOT, FUSE, "busybox")
    image(imgfs.folder)
    return imgfs


@pytest.fixture(name="other")
def users_bench(user: Bench) -> Bench:
    """A bench of another user, with an image."""
    need("busybox")
    image(user.folder)
    user.command = as_user(user.mountpoint("hold"), user.command[-1:])
    user.environment["TMPDIR"] = str(user.spool)
    user.environment.pop("XDG_RUNTIME_DIR", None)
    return user


@pytest.fixture(name="both", params=["root", "another user"])
def bench_of_both(request: pytest.FixtureRequest) -> Bench:
    """A bench of root, and one of another user."""
    found: Bench = request.getfixturevalue("root" if request.param == "root" else "other")
    return found


def in_shell(bench: Bench, script: str, *options: str) -> list[str]:
    """Run a script of the container's shell and return the lines that it prints."""
    done = bench.run("shell", *options, "./image.tar", "--", "sh", "-c", script)
    assert (done.status, done.err) == (0, "")
    assert bench.processes() == {}
    return done.out.splitlines()


def test_a_command_sees_the_image_and_little_else(both: Bench) -> None:
    script = "id -u; ls -d /proc/1; ls /dev; ls /; echo $A:$PATH:$HOME; test -e /etc/hosts"
    assert in_shell(both, script) == [
        *("0", "/proc/1"),
        *("fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty", "urandom", "zero"),
        *("bin", "broken", "dev", "etc", "foreign", "null", "plain", "proc", "srv"),
        "b c:/bin:/root",
    ]


def test_what_changes_is_gone(both: Bench) -> None:
    before = (both.folder / "image.tar").read_bytes()
    script = "echo new > /new; echo more >> /etc/passwd; rm -r /srv /etc/gone; ls /etc/gone 2>&1; cat /new"
    assert in_shell(both, script) == ["ls: /etc/gone: No such file or directory", "new"]
    assert in_shell(both, "test -e /etc/gone && ls /new 2>&1 || true") == ["ls: /new: No such file or directory"]
    assert (both.folder / "image.tar").read_bytes() == before


def test_keep_keeps_what_changes(both: Bench) -> None:
    script = "echo new > /etc/new; rm /etc/gone"
    assert in_shell(both, script, "--keep", "./kept") == []
    kept = both.folder / "kept"
    assert (kept / "etc" / "new").read_text() == "new\n"
    gone = (kept / "etc" / "gone").lstat()  # a whiteout of overlayfs
    assert (stat.S_ISCHR(gone.st_mode), gone.st_rdev) == (True, 0)
    assert sorted(os.listdir(both.folder)).count(".kept.imgfs-work") == 0
    assert in_shell(both, "cat /etc/new; test ! -e /etc/gone", "--keep", "./kept") == ["new"]  # and can be gone on with
    done = both.run("shell", "--keep", "./no/kept", "./image.tar")
    assert (done.status, done.err) == (8, "imgfs: cannot use ./no/kept for --keep: No such file or directory\n")


def test_a_kept_directory_is_for_one_shell_at_a_time(both: Bench) -> None:
    script = "echo ready; read line; rm -r /srv; echo $line > /etc/new"
    words = ("shell", "--keep", "kept", "./image.tar", "--", "sh", "-c")
    first = both.start(*words, script, stdin=subprocess.PIPE)
    assert first.stdout is not None
    assert first.stdout.readline() == "ready\n"
    second = both.run(*words, "true")
    assert (second.status, second.err) == (8, "imgfs: cannot use kept for --keep: in use by another imgfs shell\n")
    assert first.communicate("new\n", timeout=20) == ("", "")
    assert (both.folder / "kept" / "etc" / "new").read_text() == "new\n"
    assert not (both.folder / ".kept.imgfs-work").exists()


def test_a_directory_that_overlayfs_has_left_is_used_again(both: Bench) -> None:
    work = both.folder / ".kept.imgfs-work"
    for path, mode in ((work, 0o700), (work / "work", 0)):
        path.mkdir()
        path.chmod(mode)
        os.chown(path, both.folder.stat().st_uid, -1)
    assert in_shell(both, "echo new > /etc/new", "--keep", "./kept") == []
    assert not work.exists()


@pytest.mark.parametrize("kind", ["a file in it", "a directory in it", "a link", "another user's"])
def test_what_is_not_of_imgfs_is_not_removed(root: Bench, kind: str) -> None:
    work = root.folder / ".kept.imgfs-work"
    there = root.folder / "own" if kind == "a link" else work
    (there / "work").mkdir(parents=True)
    if kind == "a link":
        work.symlink_to("own")
    elif kind == "a file in it":
        (work / "mine").write_text("mine")
        (work / "work").chmod(0)
    elif kind == "another user's":
        (work / "work").rmdir()
        os.chown(work, 33, 33)
    before = sorted(there.rglob("*"))
    done = root.run("shell", "--keep", "kept", "./image.tar", "--", "id")
    message = f"imgfs: cannot use kept for --keep: {work} exists and is not of imgfs shell\n"
    assert (done.status, done.out, done.err) == (8, "", message)
    assert sorted(there.rglob("*")) == before


def running(pid: int) -> set[str]:
    """Return the names of the processes below *pid*; those in the container have nothing of our environment."""
    names = set()
    for child in descendants(pid):
        with suppress(FileNotFoundError):
            names.add(Path(f"/proc/{child}/comm").read_text().strip())
    return names


CODES = {
    "its own": (("sh", "-c", "exit 7"), 7, ""),
    "a signal": (("sh", "-c", "kill -9 $$"), 137, ""),
    "no program": (("nope",), 127, "cannot run nope in the container: there is no such program"),
    "no file": (("/no/pe",), 127, "cannot run /no/pe in the container: there is no such program"),
    "no interpreter": (("/broken",), 127, "cannot run /broken in the container: its interpreter is missing"),
    "no mode": (("/plain",), 126, "cannot run /plain in the container: Permission denied"),
    "a directory": (("/etc",), 126, "cannot run /etc in the container: Permission denied"),
    "another machine": (("/foreign",), 126, "cannot run /foreign in the container: it is no program for this machine"),
}


def test_the_exit_code_is_that_of_the_command(root: Bench) -> None:
    for command, status, message in CODES.values():
        done = root.run("shell", "./image.tar", "--", *command)
        assert (done.status, done.out, done.err) == (status, "", message and f"imgfs: {message}\n")
    assert root.run("shell", "./none.tar").status == 4
    assert root.processes() == {}


def test_the_user_and_the_directory_are_those_of_the_image(root: Bench) -> None:
    image(root.folder, User="web", WorkingDir="/srv/made")
    script = "id; echo $HOME; readlink /proc/self/cwd; touch /srv/made/x 2>&1; touch /srv/x && stat -c %U /srv/x"
    assert in_shell(root, script) == [
        *("uid=33(web) gid=34(web) groups=40(more)", "/srv", "/srv/made"),
        *("touch: /srv/made/x: Permission denied", "web"),
    ]
    assert in_shell(root, "id", "-u", "0") == ["uid=0(root) gid=0(root) groups=40(more)"]
    assert in_shell(root, "id", "--user", "1:web") == ["uid=1 gid=34(web)"]
    done = root.run("shell", "-u", "nobody", "./image.tar")
    assert (done.status, done.err) == (4, "imgfs: the image has no user 'nobody'; see -u\n")


def test_no_path_of_an_image_leads_out_of_the_container(root: Bench) -> None:
    (root.folder / "secret").write_text("secret")
    inherited = os.open(root.folder, os.O_RDONLY)
    command = ("./image.tar", "--", "sh", "-c", "cat secret ../secret")
    for number in range(3, 13):
        image(root.folder, WorkingDir=f"/proc/self/fd/{number}")
        for options in ((), ("--keep", "kept")) if number in {3, 6, inherited} else (("--keep", "kept"),):
            done = root.run("shell", *options, *command, pass_fds=[inherited])
            assert (done.status, done.out) == (126, "")
            assert done.err.startswith(f"imgfs: cannot enter /proc/self/fd/{number} in the container: ")
    os.close(inherited)


def test_no_path_of_an_image_leads_through_open_files(root: Bench) -> None:
    path = "/proc/self/cwd/made"
    image(root.folder, WorkingDir=path)
    done = root.run("shell", "./image.tar", "--", "ls", "/")
    assert (done.status, done.out) == (126, "")
    assert done.err == f"imgfs: cannot enter {path} in the container: Too many levels of symbolic links\n"


def test_etc_of_an_image_leads_to_no_open_directory(root: Bench) -> None:
    inherited = os.open(root.folder, os.O_RDONLY)
    layers = [changeset(symlink("etc", f"/proc/self/fd/{inherited}"), file("x", b"x"))]
    Archive(layers, config=image_config(layers, config={"User": "web"})).write(root.folder / "image.tar")
    (root.folder / "passwd").write_bytes(PASSWD)
    done = root.run("shell", "./image.tar", "--", "/x", pass_fds=[inherited])
    os.close(inherited)
    assert (done.status, done.err) == (4, "imgfs: the image has no user 'web'; see -u\n")
    assert not {"hosts", "resolv.conf"} & set(os.listdir(root.folder))


@pytest.mark.parametrize("name", ["proc", "dev"])
def test_a_link_in_place_of_proc_or_dev_is_refused(root: Bench, name: str) -> None:
    layers = [changeset(symlink(name, "/etc"), folder("etc"))]
    Archive(layers, config=image_config(layers)).write(root.folder / "image.tar")
    done = root.run("shell", "./image.tar")
    assert (done.status, done.err) == (9, f"imgfs: cannot make /{name} in the container: Not a directory\n")


def test_variables_that_no_process_can_have_are_left_out(root: Bench) -> None:
    image(root.folder, Env=["=x", "", "A=\0", "B\0=b", "E=e=f", "PATH=/bin\0"])
    passwd = PASSWD.replace(b"/root", b"/ro\0ot")
    environment = in_shell(root, "echo $A:$E:$PATH")
    assert environment == [":e=f:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    layers = [changeset(file("etc/passwd", passwd), file("bin/sh", BUSYBOX.read_bytes(), About(mode=0o755)))]
    Archive(layers, config=image_config(layers)).write(root.folder / "image.tar")
    assert in_shell(root, "echo -$HOME-") == ["--"]


ODD: dict[str, tuple[str, str, int, str]] = {
    "no path": ("WorkingDir", "/a\0b", 5, r"the working directory of the image is no path: /a\x00b"),
    "no character": ("WorkingDir", "/\ud800", 0, ""),  # JSON: U+FFFD
    "many directories": ("WorkingDir", "/a" * 2040, 0, ""),
    "a long name": ("WorkingDir", "a" * 256, 126, f"cannot enter {'a' * 256} in the container: File name too long"),
    "a number": ("User", "9" * 5000, 4, f"the user '{'9' * 64}…' has a number that is too large; see -u"),
    "no name": ("User", "\0", 4, r"the image has no user '\\x00'; see -u"),
}


@pytest.mark.parametrize("case", ODD)
def test_an_odd_config_is_one_line(root: Bench, case: str) -> None:
    key, value, status, message = ODD[case]
    image(root.folder, shell=True, **{key: value})
    done = root.run("shell", "./image.tar", "--", "sh", "-c", "true")
    assert (done.status, done.out, done.err) == (status, "", message and f"imgfs: {message}\n")


@pytest.mark.parametrize(
    "words", [(), ("/run",), ("run",), ("/again",), ("/odd",), ("/proc/self/exe",), ("/unreadable",)]
)
def test_no_command_is_the_program_of_this_process(root: Bench, words: tuple[str, ...]) -> None:
    layers = [
        changeset(
            symlink("bin/bash", "/proc/self/exe"),
            file("run", b"#! /proc/self/exe -V\n", About(mode=0o755)),
            file("again", b"#!/run", About(mode=0o755)),
            symlink("odd\fname", "/run"),
            file("odd", b"#!\t/odd\fname x", About(mode=0o755)),
            file("unreadable", b"#!/run", About(mode=0o711)),
        )
    ]
    config = {"Env": ["PATH=/none:/"], "User": "33"}
    Archive(layers, config=image_config(layers, config=config)).write(root.folder / "image.tar")
    done = root.run("shell", "./image.tar", "--", *words)
    path = {"run": "/run", "": "/bin/bash"}.get("".join(words), "".join(words))
    message = f"imgfs: {path} of the image leads to a program of this machine\n"
    assert (done.status, done.out, done.err) == (4, "", message)


def test_no_code_of_an_image_runs_as_imgfs(root: Bench) -> None:
    folder_ = os.path.dirname(encodings.__file__)
    layers = [changeset(file(f"{folder_[1:]}/unicode_escape.py", b"import os; os.write(2, b'code of the image')"))]
    Archive(layers, config=image_config(layers, config={"User": "\0"})).write(root.folder / "image.tar")
    done = root.run("shell", "./image.tar")
    assert (done.status, done.err) == (4, "imgfs: the image has no user '\\\\x00'; see -u\n")


JOINING = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
libc.syscall(250, 1, None)  # keyctl(KEYCTL_JOIN_SESSION_KEYRING)
key = libc.syscall(248, b"user", b"imgfs-tests-secret", b"x", 1, -3)  # add_key(2), to the session keyring
libc.syscall(250, 5, key, 0x3F000000)  # KEYCTL_SETPERM: who has the keyring has the key
assert "imgfs-tests-secret" in open("/proc/keys").read()
os.execvp(sys.argv[1], sys.argv[1:])
"""


def test_keys_and_shared_memory_of_the_system_are_not_in_it(both: Bench) -> None:
    if os.uname().machine == "x86_64":
        both.command = (sys.executable, "-c", JOINING, *both.command)
    names = ("ipc", "cgroup", "mnt", "pid", "net", "uts")
    keys, *there = in_shell(
        both, f"echo :$(cat /proc/keys); cd /proc/self/ns; for n in {' '.join(names)}; do readlink $n; done"
    )
    assert "imgfs-tests-secret" not in keys
    ours = [os.readlink(f"/proc/self/ns/{name}") for name in names]
    assert [one == other for one, other in zip(there, ours, strict=True)] == [False, False, False, False, True, True]


def test_programs_of_root_cannot_use_devices_or_change_the_kernel(root: Bench) -> None:
    script = "cat /null 2>&1; mknod /d c 1 3 2>&1; echo x 2>&1 > /proc/sys/kernel/hostname; cat /proc/self/status"
    denied, mknod, sysctl, *status = in_shell(root, f"exec 2>&1; {script}")
    assert denied == "cat: can't open '/null': Permission denied"
    assert mknod == "mknod: /d: Operation not permitted"
    assert sysctl == "sh: can't create /proc/sys/kernel/hostname: Read-only file system"
    (effective,) = (int(line.split()[1], 16) for line in status if line.startswith("CapEff"))
    assert effective == 0xA00425FB & ~(1 << 27)  # docker run's without mknod


def test_another_user_without_ranges_is_root_alone(other: Bench) -> None:
    image(other.folder, User="web")
    done = other.run("shell", "./image.tar", "--", "sh", "-c", "id -u; stat -c %u /etc/odd; echo x >> /etc/odd")
    assert (done.status, done.out) == (0, "0\n0\n")
    assert done.err == "imgfs: warning: only root is in the namespace, not the user 33 of the image; -u 0 says so\n"


def test_another_user_with_ranges_has_all_users(other: Bench) -> None:
    need("newuidmap", "newgidmap")
    ranges = other.folder / "ranges"
    ranges.write_text("65534:200000:65536\n")
    bind = f"touch /etc/subuid /etc/subgid; mount --bind {ranges} /etc/subuid; mount --bind {ranges} /etc/subgid"
    other.command = as_user(other.folder / "hold", other.command[-1:], bind)
    assert in_shell(other, "id; stat -c %u /etc/odd", "-u", "web") == ["uid=33(web) gid=34(web) groups=40(more)", "33"]
    assert in_shell(other, "chown 5:6 /etc/odd; stat -c %u:%g /etc/odd", "--keep", "kept") == ["5:6"]
    assert (other.folder / "kept" / "etc" / "odd").stat().st_uid == 200004


def test_where_user_namespaces_are_not_allowed_it_says_what_to_do(root: Bench) -> None:
    deny = 'echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --bounding-set=-all --inh-caps=-all "$@"'
    root.command = ("unshare", "--user", "--map-root-user", "sh", "-c", deny, "sh", *root.command)
    done = root.run("shell", "./image.tar")
    assert done.status == 9
    assert done.err.startswith("imgfs: cannot make a user namespace: No space left on device; run it as root, or allow")
    assert done.err.count("\n") == 1


def test_an_image_that_cannot_be_read_has_its_own_exit_status(root: Bench) -> None:
    plain = changeset(file("bin/sh", b"x"))
    Archive([compressed(plain, "gzip")[:-1]], config=image_config([plain])).write(root.folder / "cut.tar")
    done = root.run("shell", "./cut.tar")
    assert done.status == 4
    reason, said = done.err.splitlines()
    assert "layer 0" in reason
    assert said == "imgfs: cannot make /proc in the container: Input/output error"


def test_tools_bring_a_shell(both: Bench) -> None:
    image(both.folder, shell=False)
    done = both.run("shell", "./image.tar")
    assert done.status == 127
    assert done.err == "imgfs: cannot run sh in the container: there is no such program; --tools brings a shell\n"
    assert in_shell(both, "echo $PATH; ls /opt; exit", "--tools") == ["/bin:/dev/imgfs", "x"]
    if both.command[0] != "unshare":
        done = both.run("shell", "--tools", "./image.tar", PATH="/nonexistent")
        assert (done.status, done.err) == (4, "imgfs: --tools needs busybox on this machine; install busybox-static\n")


CONTROLLING = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)
"""Makes standard input the controlling terminal, at which Ctrl-C is a signal."""


def test_a_terminal_gets_a_shell(root: Bench) -> None:
    root.command = (sys.executable, "-c", CONTROLLING, *root.command)
    terminal = Terminal(root, "shell", root.folder / "image.tar")
    terminal.sees(r"/ # ")
    os.write(terminal.master, b"tty; sleep 100\n")
    terminal.sees(r"/dev/console")
    until(lambda: "sleep" in running(terminal.process.pid), "it sleeps")
    os.write(terminal.master, b"\x03")  # ends the program, not the shell
    terminal.sees(r"/dev/console[^#]*# ")
    os.write(terminal.master, b"exit 3\n")
    assert terminal.end() == 3
    assert root.processes() == {}


def test_ctrl_c_ends_a_command(root: Bench) -> None:
    root.command = (sys.executable, "-c", CONTROLLING, *root.command)
    terminal = Terminal(root, "shell", root.folder / "image.tar", "--", "sh", "-c", "echo ready; exec sleep 100")
    terminal.sees("ready")
    until(lambda: "sleep" in running(terminal.process.pid), "it sleeps")
    os.write(terminal.master, b"\x03")
    assert terminal.end() == 130
    assert root.processes() == {}


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGKILL, -9)])
def test_nothing_outlives_it(both: Bench, number: signal.Signals, status: int) -> None:
    words = ("sh", "-c", "sleep 100 & echo ready; wait")
    process = both.start("shell", "./image.tar", "--", *words)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    others = descendants(process.pid)
    assert len(others) >= 4
    process.send_signal(number)
    process.communicate(timeout=20)
    assert process.returncode == status
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in others), "all processes end")
    left = list(both.spool.iterdir())
    assert len(left) == (number == signal.SIGKILL and both.command[0] == "unshare")  # an empty directory
    for path in left:
        path.rmdir()


def test_an_image_without_a_root_file_system_is_an_error(root: Bench) -> None:
    Archive([], config=b'{"architecture":"amd64","os":"windows","rootfs":{"type":"layers","diff_ids":[]}}').write(
        root.folder / "image.tar"
    )
    done = root.run("shell", "./image.tar")
    assert done.status in {4, 127}
    assert root.processes() == {}
