"""The kernel's switches for a FUSE connection (fuse.rst, "FUSE control filesystem")."""

import os

from fusefs.mount.syscalls import mount_detached

_FOLDER = "/sys/fs/fuse/connections"


def set_switch(connection: int, name: str, value: int) -> None:
    """Set the switch *name* of a *connection* to *value*; OSError if that is not permitted."""
    try:
        switch = os.open(f"{_FOLDER}/{connection}/{name}", os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # the control file system is not mounted, as in containers
        folder = mount_detached(b"fusectl")  # for this process alone
        try:
            switch = os.open(f"{connection}/{name}", os.O_WRONLY | os.O_CLOEXEC, dir_fd=folder)
        finally:
            os.close(folder)
    try:
        os.write(switch, b"%d\n" % value)
    finally:
        os.close(switch)
