"""The kernel's switches for a FUSE connection (fuse.rst, "FUSE control filesystem")."""

import os

from fusefs.mount.syscalls import FSCONFIG_CMD_CREATE, fsconfig, fsmount, fsopen

_FOLDER = "/sys/fs/fuse/connections"


def set_switch(connection: int, name: str, value: int) -> None:
    """Set the switch *name* of a *connection* to *value*; OSError if that is not permitted."""
    try:
        switch = os.open(f"{_FOLDER}/{connection}/{name}", os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # the control file system is not mounted, as in containers
        folder = _open_detached()
        try:
            switch = os.open(f"{connection}/{name}", os.O_WRONLY | os.O_CLOEXEC, dir_fd=folder)
        finally:
            os.close(folder)
    try:
        os.write(switch, b"%d\n" % value)
    finally:
        os.close(switch)


def _open_detached() -> int:
    """Return a descriptor of the control file system, mounted detached, for this process alone.  Requires root."""
    context = fsopen(b"fusectl")
    try:
        fsconfig(context, FSCONFIG_CMD_CREATE)
        return fsmount(context)
    finally:
        os.close(context)
