"""imgfs version: the version; with --verbose, what a bug report needs to know about this machine."""

import argparse
import ctypes
import os
import sys
from collections.abc import Iterator, Mapping

import fusefs
from fusefs import __version__
from fusefs.cli.output.stdout import Output

_PACKAGES = ("trio", "docker", "urllib3", "isal", "backports.zstd")


def run(arguments: argparse.Namespace, environment: Mapping[str, str]) -> None:
    """Print the version, or the report."""
    output = Output(environment)
    for line in report() if arguments.verbose else [f"imgfs {__version__}"]:
        output.line(line)
    output.finish()


def report() -> Iterator[str]:
    """Yield the versions of imgfs and of what it uses, and which drivers can mount here, a line each."""
    names = os.uname()
    yield f"imgfs {__version__} ({os.path.dirname(fusefs.__file__)})"
    yield f"Python {'.'.join(map(str, sys.version_info[:3]))} ({sys.executable})"
    yield f"pyfuse3 {_version('pyfuse3')}, libfuse {_libfuse()}"
    yield ", ".join(f"{package} {_version(package)}" for package in _PACKAGES)
    yield f"{names.sysname} {names.release} {names.machine} ({names.version})"
    yield f"driver fuse: {_fuse()}"
    yield f"driver erofs: {_erofs()}"


def _version(package: str) -> str:
    from importlib import metadata  # noqa: PLC0415 - the version of imgfs alone needs none of these

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "missing"


def _libfuse() -> str:
    """Return the version of the library that pyfuse3 loads."""
    from importlib.util import find_spec  # noqa: PLC0415 - as above

    module = find_spec("pyfuse3")
    if module is None or module.origin is None:
        return "unknown"
    try:
        version = ctypes.CDLL(module.origin).fuse_pkgversion  # the symbols of a library are also those that it needs
    except (OSError, AttributeError) as error:
        return f"cannot be loaded: {error}"
    version.restype = ctypes.c_char_p
    return str(version().decode("ascii", "replace"))


def _fuse() -> str:
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"/dev/fuse cannot be opened: {error.strerror}"
    return "/dev/fuse can be opened"


def _erofs() -> str:
    from fusefs.mount.kernel.support import KernelUnable, backing_here, can_mount_beneath  # noqa: PLC0415 - as above

    try:
        backing = backing_here()
    except KernelUnable as error:
        return str(error)
    if os.geteuid() != 0:
        return f"from {backing.value}s, for root only"
    names = os.uname()
    beneath = can_mount_beneath(names.release, names.version)
    return f"from {backing.value}s, {'also after FUSE' if beneath else 'but not after FUSE: that needs Linux 6.5'}"
