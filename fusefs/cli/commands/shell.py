"""imgfs shell: run a command in a throwaway container over an image."""

import argparse
import errno
import fcntl
import os
import secrets
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Literal

from fusefs.cli.commands.mount import mount_image
from fusefs.cli.output.messages import log_to_stderr
from fusefs.cli.output.stdout import say
from fusefs.cli.parsing.mount_options import FUSE
from fusefs.cli.parsing.program import parse_arguments
from fusefs.cli.stopping import ended_by_signals
from fusefs.container.namespaces import Users, enter_namespaces
from fusefs.container.process import Call, end_with_parent, run_in_container
from fusefs.container.rootfs import Plan, Tools
from fusefs.copying.directories import remove
from fusefs.errors import ImgfsError, LimitReached, MountError, NoSpace, Unavailable, limit_reached
from fusefs.mount.mountpoint import runtime_directory
from fusefs.mount.syscalls import MNT_DETACH, MS_NODEV, MS_NOSUID, mount, umount2
from fusefs.oci.config import Details, parse_details
from fusefs.private import private_directory, try_lock
from fusefs.sources.argument import public_name
from fusefs.text import printable

_SHELLS = (("/bin/bash",), ("/bin/sh",), ("sh",))
"""Shells that are tried; the last one is found among the tools, too."""
_INTERPRETER = 3
"""The type of an ELF segment that names the dynamic loader: PT_INTERP."""
_OF_OVERLAY = ("index", "work")
"""Directories that overlayfs makes in the one beside --keep."""
_READY = b"READY=1"
"""A line of a message of sd_notify(3)."""
_MAX_MESSAGE = 4096
_END = 10.0
"""Seconds that the image's mount has to end, with what it writes to the cache."""


def run(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Run the command and return its exit status."""
    log_to_stderr(quiet=arguments.quiet, verbose=arguments.verbose)
    tools = _tools() if arguments.tools else None
    with ended_by_signals(), _place(environment) as place, _kept(arguments.keep) as kept:
        users = enter_namespaces()
        _mount_tmpfs(place)
        mountpoint = os.path.join(place, "image")
        os.mkdir(mountpoint, 0o700)
        with _mounted(arguments, environment, mountpoint, users):
            lower = os.path.join(mountpoint, "rootfs")
            _check_directory(lower, public_name(arguments.image))
            plan = Plan(place, lower, kept, tools, users.has_all, users.is_first)
            return run_in_container(plan, _call(arguments, environment, _details(mountpoint)))


def _check_directory(rootfs: str, image: str) -> None:
    try:
        is_directory = stat.S_ISDIR(os.stat(rootfs).st_mode)
    except FileNotFoundError:
        is_directory = False
    except OSError as error:
        reason = f"cannot read the root file system of {printable(image)}: {error.strerror}"
        raise limit_reached(error) or Unavailable(reason) from None
    if not is_directory:
        raise Unavailable(f"{printable(image)} has no root file system")


def _call(arguments: argparse.Namespace, environment: Mapping[str, str], details: Details) -> Call:
    variables = dict(text.partition("=")[::2] for text in details.environment)
    if "TERM" in environment and sys.stdin.isatty():
        variables.setdefault("TERM", environment["TERM"])
    user = details.user if arguments.user is None else arguments.user
    commands = [tuple(arguments.words)] if arguments.words else _SHELLS
    return Call(commands, variables, details.working_dir or "/", user)


def _details(mountpoint: str) -> Details:
    with open(os.path.join(mountpoint, "config"), "rb") as file:
        return parse_details(file.read())


@contextmanager
def _place(environment: Mapping[str, str]) -> Iterator[str]:
    """Give a directory to mount over: nobody else sees that."""
    folder = _runtime_folder(environment)
    if folder is not None:
        yield folder
        return
    folder = tempfile.mkdtemp(prefix="imgfs-shell-")
    try:
        yield folder
    finally:
        with suppress(OSError):
            umount2(os.fsencode(folder), MNT_DETACH)
        with suppress(OSError):
            os.rmdir(folder)


def _runtime_folder(environment: Mapping[str, str]) -> str | None:
    runtime = runtime_directory(environment)
    if runtime is None:
        return None
    folder = os.path.join(os.path.realpath(runtime), "imgfs")
    try:
        os.close(private_directory(folder))
    except OSError:
        return None
    return folder


def _mount_tmpfs(place: str) -> None:
    try:
        mount(b"tmpfs", os.fsencode(place), b"tmpfs", MS_NOSUID | MS_NODEV, b"mode=0700")
    except OSError as error:
        raise MountError(f"cannot mount in the namespace: {error.strerror}") from None


@contextmanager
def _kept(path: str | None) -> Iterator[tuple[str, str] | None]:
    """Give the directory for changes, made if it is missing, and one beside it that overlayfs needs."""
    if path is None:
        yield None
        return
    upper = os.path.realpath(path)
    above, name = os.path.split(upper)
    work = os.path.join(above, f".{name}.imgfs-work")
    shown = printable(path)
    with ExitStack() as stack:
        try:
            with suppress(FileExistsError):
                os.mkdir(upper)
            lock = _opened_directory(upper, None, stack)
            if not try_lock(lock, fcntl.LOCK_EX):
                raise NoSpace(f"cannot use {shown} for --keep: in use by another imgfs shell")
            parent = os.open(above, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, parent)
            work_identity = _made_work(os.path.basename(work), parent, stack)
        except OSError as error:
            raise limit_reached(error) or NoSpace(f"cannot use {shown} for --keep: {error.strerror}") from None
        if work_identity is None:
            raise NoSpace(f"cannot use {shown} for --keep: {printable(work)} exists and is not of imgfs shell")
        try:
            yield upper, work
        finally:
            with suppress(OSError):
                if _identity(os.stat(os.path.basename(work), dir_fd=parent, follow_symlinks=False)) == work_identity:
                    remove(os.fsencode(os.path.basename(work)), parent)


def _made_work(name: str, parent: int, stack: ExitStack) -> tuple[int, int] | None:
    """Make the directory *name* for overlayfs and return its identity; None if another one has this name.

    One that a killed shell has left is used again: in it are only directories of overlayfs, which have no modes.
    """
    is_new = False
    with suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=parent)
        is_new = True
    try:
        directory = _opened_directory(name, parent, stack)
    except OSError as error:
        if error.errno not in {errno.ELOOP, errno.ENOTDIR, errno.EACCES}:
            raise
        return None
    status = os.fstat(directory)
    if not is_new and (
        status.st_uid != os.geteuid() or not all(_is_of_overlay(one, directory) for one in os.listdir(directory))
    ):
        return None
    return _identity(status)


def _is_of_overlay(name: str, directory: int) -> bool:
    mode = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
    return name in _OF_OVERLAY and mode == stat.S_IFDIR


def _opened_directory(path: str, parent: int | None, stack: ExitStack) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    stack.callback(os.close, descriptor)
    return descriptor


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


@contextmanager
def _mounted(
    arguments: argparse.Namespace, environment: Mapping[str, str], mountpoint: str, users: Users
) -> Iterator[None]:
    """Mount the image in a child process; unmount it at the end."""
    address = f"imgfs-shell-{secrets.token_hex(16)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
        ready.bind(f"\0{address}")
        child = os.fork()  # no thread runs yet
        if child == 0:
            _serve(arguments, {**environment, "NOTIFY_SOCKET": f"@{address}"}, mountpoint, users)
        served = os.pidfd_open(child)
        try:
            if not _is_ready(ready, served):
                status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                if status < 0:
                    raise MountError(f"the process that serves the image was ended by {signal.Signals(-status).name}")
                raise SystemExit(status)  # it has said why
            yield
        finally:
            _end(child, served)


def _is_ready(ready: socket.socket, served: int) -> bool:
    """Wait until the mount's process says that it is ready; return False if it has ended."""
    poll = select.poll()
    for descriptor in (ready.fileno(), served):
        poll.register(descriptor, select.POLLIN)
    while True:
        if served in dict(poll.poll()):
            return False
        with suppress(BlockingIOError):
            if _READY in ready.recv(_MAX_MESSAGE, socket.MSG_DONTWAIT).split(b"\n"):  # not STATUS=
                return True


def _end(child: int, served: int) -> None:
    """Let the mount end; kill its process if that takes too long."""
    for number, seconds in ((signal.SIGTERM, _END), (signal.SIGKILL, None)):
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(served, number)
        if select.select([served], [], [], seconds)[0]:
            break
    os.close(served)
    with suppress(ChildProcessError):
        os.waitpid(child, 0)


def _serve(arguments: argparse.Namespace, environment: Mapping[str, str], mountpoint: str, users: Users) -> None:
    """Serve the mount in this child process, and end it."""
    status = 1
    try:
        end_with_parent()
        os.setsid()  # signals of the terminal are for the command
        own = [] if users.has_all else ["-o", "uid=0,gid=0"]
        words = ["mount", "--foreground", "--driver", FUSE, *own, "--", arguments.image, mountpoint]
        options = parse_arguments(words)
        common = {name: value for name, value in vars(arguments).items() if hasattr(options, name)}
        given = {name: getattr(options, name) for name in ("command", "image", "mountpoint")}
        mount_image(argparse.Namespace(**vars(options) | common | given, as_helper=True, fake=False), environment)
        status = 0
    except ImgfsError as error:
        say(printable(str(error)))
        status = error.exit_code
    except Exception as error:  # noqa: BLE001 - a bug, or a limit
        reached = limit_reached(error)
        if reached is None:
            sys.excepthook(*sys.exc_info())
        else:
            say(str(reached))
            status = LimitReached.exit_code
    finally:
        os._exit(status)


def _tools() -> Tools:
    """Return the host's busybox, which must not need the host's libraries."""
    path = shutil.which("busybox")
    if path is None:
        raise Unavailable("--tools needs busybox on this machine; install busybox-static")
    with open(path, "rb") as file:
        program = file.read()
    if _is_dynamic(program):
        raise Unavailable(
            f"--tools needs a static busybox; {printable(path)} is linked dynamically: install busybox-static"
        )
    listed = subprocess.run([path, "--list"], stdout=subprocess.PIPE, check=False).stdout.decode()
    return Tools(program, tuple(name for name in listed.split() if name != "busybox" and "/" not in name))


def _is_dynamic(program: bytes) -> bool:
    """Return whether a 64-bit ELF file has a dynamic loader."""
    if program[:5] != b"\x7fELF\x02":
        return True
    order: Literal["little", "big"] = "little" if program[5] == 1 else "big"
    start, size, count = (
        int.from_bytes(program[at : at + length], order) for at, length in ((32, 8), (54, 2), (56, 2))
    )
    kinds: Sequence[int] = [int.from_bytes(program[start + at * size :][:4], order) for at in range(count)]
    return _INTERPRETER in kinds
