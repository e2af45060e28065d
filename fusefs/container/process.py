"""The first process of a container, and the command that it runs."""

import ctypes
import errno
import os
import signal
import stat
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple, NoReturn

from fusefs.container.identity import Identity, identity_of
from fusefs.container.keyring import join_new_keyring
from fusefs.container.rootfs import TOOLS, Plan, enter_root
from fusefs.container.terminal import forbid_terminal_input
from fusefs.errors import ImgfsError, InvalidImage, MountError, Unavailable, limit_reached
from fusefs.mount.privileges import keep_capabilities
from fusefs.mount.syscalls import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNS,
    CLONE_NEWPID,
    make_mounts_private,
    open_by_names,
    unshare,
)
from fusefs.pattern import pattern
from fusefs.text import printable

_STDERR = 2
_INTERPRETER = pattern(rb"#![ \t]*([^ \t\n\0]+)")
"""The interpreter of a script, as the kernel reads it (fs/binfmt_script.c)."""
_MAX_INTERPRETERS, _MAX_FIRST_LINE = 8, 256
"""The kernel follows fewer interpreters of scripts, each in as many bytes (fs/exec.c, BINPRM_BUF_SIZE)."""
NOT_FOUND, NOT_EXECUTABLE = 127, 126
"""Exit codes of a command that cannot be run, as of shells."""
_CAPABILITIES = frozenset({0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 29, 31})
"""Those of docker run but CAP_MKNOD: chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap,
net_bind_service, net_raw, sys_chroot, audit_write, setfcap."""
_PR_SET_PDEATHSIG = 1
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_IGNORED = (signal.SIGINT, signal.SIGQUIT)
"""Signals of the terminal: they reach the command, too."""

_libc = ctypes.CDLL(None, use_errno=True)


class Call(NamedTuple):
    """A command, and how it is run."""

    commands: Sequence[Sequence[str]]
    """The first one that there is."""
    environment: Mapping[str, str]
    directory: str
    user: str
    """As `identity_of` takes it."""


def end_with_parent() -> None:
    """Let the kernel kill this process when its parent ends."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def run_in_container(plan: Plan, call: Call) -> int:
    """Run the command and return its exit status; 128 and more: the number of the signal that has ended it.

    Meanwhile, signals are passed on.  An error is written to stderr; its exit code is the result.
    """
    try:
        unshare(CLONE_NEWPID)
    except OSError as error:
        raise limit_reached(error) or MountError(f"cannot make a PID namespace: {error.strerror}") from None
    if not _is_text(call.directory):
        raise InvalidImage(f"the working directory of the image is no path: {printable(call.directory)}")
    first = os.fork()
    if first == 0:
        _exit(lambda: _first(plan, call))
    return _waited(first)


def _exit(work: Callable[[], int]) -> NoReturn:
    """End this process with the result of *work*; never go on as the process that was forked."""
    status = 1
    try:
        status = work()
    except ImgfsError as error:
        _say(printable(str(error)))
        status = error.exit_code
    except Exception as error:  # noqa: BLE001 - a limit, an error of the system, or a bug
        status = _said(error)
    finally:
        os._exit(status)


def _said(error: Exception) -> int:
    """Say what has ended this process, and return its exit code.

    A bug gets no traceback: that would show lines of the image's files in place of ours.
    """
    reached = limit_reached(error)
    if reached is not None:
        _say(str(reached))
        return reached.exit_code
    reason = str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
    _say(f"cannot make the container: {printable(reason)}")
    return MountError.exit_code


def _say(message: str) -> None:
    with suppress(OSError):
        os.write(2, f"imgfs: {message}\n".encode("utf-8", "backslashreplace"))


def _first(plan: Plan, call: Call) -> int:
    """Do what the first process of a PID namespace does: make the root file system, run the command, and wait."""
    end_with_parent()
    _close_descriptors()
    _forbid_imports()
    unshare(CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWCGROUP)
    make_mounts_private()
    enter_root(plan)
    identity = identity_of(call.user)
    child = os.fork()
    if child == 0:
        _exit(lambda: _command(call, identity, plan))
    return _waited(child)


def _forbid_imports() -> None:
    """Import no more modules: they would be found in the image, and their code would run with all capabilities."""
    "\x80".encode("unicode_escape")  # of `printable`: this codec is a module
    sys.meta_path.clear()


def _close_descriptors() -> None:
    """Close all descriptors but 0, 1 and 2: a path of the image could lead to a directory of the host through one."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > _STDERR:
            with suppress(OSError):  # that of the listing
                os.close(int(name))


def _waited(child: int) -> int:
    """Return the exit status of *child*; meanwhile, adopt processes and pass signals on."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    for number in _FORWARDED:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, _: _pass_on(child, number))
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == child:
            for number in _FORWARDED:  # its number may be another process's soon
                signal.signal(number, signal.SIG_IGN)
            return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def _pass_on(child: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(child, number)


def _command(call: Call, identity: Identity, plan: Plan) -> int:
    """Become the command; return an exit code if that is not possible."""
    for number in (*_IGNORED, *_FORWARDED, signal.SIGPIPE, signal.SIGXFSZ):
        if number not in _FORWARDED or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    forbid_terminal_input()
    keep_capabilities(_CAPABILITIES)
    environment = _usable({"HOME": identity.home, "PATH": _DEFAULT_PATH}) | _usable(call.environment)
    if plan.tools is not None:
        environment["PATH"] += f":{TOOLS}"
    _close_descriptors()
    try:
        _enter(call.directory, make=True)
        _check_programs(call.commands, environment)
        _become(identity, plan)
        join_new_keyring()  # which belongs to this user
        _enter(call.directory)
    except OSError as error:
        _say(f"cannot enter {printable(call.directory)} in the container: {error.strerror}")
        return NOT_EXECUTABLE
    problem = OSError(errno.ENOENT, "")
    for command in call.commands:
        problem = _executed(command, environment)
        if problem.errno != errno.ENOENT:
            break
    _say(f"cannot run {printable(call.commands[-1][0])} in the container: {_reason(call, problem)}")
    return NOT_FOUND if problem.errno == errno.ENOENT else NOT_EXECUTABLE


def _usable(variables: Mapping[str, str]) -> dict[str, str]:
    """Return those of the *variables* that a process can have."""
    return {name: value for name, value in variables.items() if name and _is_text(name) and _is_text(value)}


def _is_text(text: str) -> bool:
    """Return whether the system can take the *text*: JSON may contain null characters and lone surrogates."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def _enter(path: str, *, make: bool = False) -> None:
    """Make *path*, which the image chooses, the working directory; it is below the root directory, else OSError."""
    os.chdir("/")
    for name in filter(None, os.fsencode(path).split(b"/")):
        try:
            directory = open_by_names(name, _DIRECTORY)
        except FileNotFoundError:
            if not make:
                raise
            os.mkdir(name)
            directory = open_by_names(name, _DIRECTORY)
        try:
            os.fchdir(directory)
        finally:
            os.close(directory)
    if not os.getcwd().startswith("/"):  # the kernel says "(unreachable)"; the C library mostly makes ENOENT of that
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def _become(identity: Identity, plan: Plan) -> None:
    """Take the user's identity; in a namespace with root alone, stay root."""
    if not plan.all_users:
        if identity.uid or identity.gid:
            _say(f"warning: only root is in the namespace, not the user {identity.uid} of the image; -u 0 says so")
        return
    os.setgroups(identity.groups)
    os.setgid(identity.gid)
    os.setuid(identity.uid)


def _check_programs(commands: Sequence[Sequence[str]], environment: Mapping[str, str]) -> None:
    """Raise Unavailable if a command would be run by the program of this process, Python, which /proc/self/exe names.

    Its libraries would be the image's: their code could write to the program of the host through that name.
    """
    own = os.stat("/proc/self/exe")
    for command in commands:
        for path in _paths(command[0], environment):
            if _leads_to(path, own):
                raise Unavailable(f"{printable(path)} of the image leads to a program of this machine")


def _leads_to(path: str | bytes, own: os.stat_result) -> bool:
    """Return whether *path*, or the interpreter of this script, is the file *own*."""
    for _ in range(_MAX_INTERPRETERS):
        try:
            status = os.stat(path)
            if os.path.samestat(status, own):
                return True
            if not stat.S_ISREG(status.st_mode):
                return False
            with open(path, "rb") as file:
                start = file.read(_MAX_FIRST_LINE)
        except OSError:
            return False
        found = _INTERPRETER.match(start)
        if found is None:
            return False
        path = found[1]
    return False


def _paths(name: str, environment: Mapping[str, str]) -> list[str]:
    """Return the paths that execvp(3) tries."""
    if "/" in name or not name:
        return [name] if name else []
    return [os.path.join(folder or ".", name) for folder in environment["PATH"].split(":")]


def _executed(command: Sequence[str], environment: Mapping[str, str]) -> OSError:
    """Replace this process by the command, found as execvp(3) does; return the error if that fails."""
    worst = OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    for path in _paths(command[0], environment):
        try:
            os.execve(path, list(command), environment)  # noqa: S606 - no shell is wanted
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                worst = error
            elif os.path.exists(path):
                worst = OSError(errno.ENOENT, "its interpreter is missing", path)
    return worst


def _reason(call: Call, problem: OSError) -> str:
    if problem.errno == errno.ENOEXEC:
        return "it is no program for this machine"
    if problem.errno == errno.ENOENT and not problem.filename:
        return "there is no such program" + ("; --tools brings a shell" if len(call.commands) > 1 else "")
    return str(problem.strerror)
