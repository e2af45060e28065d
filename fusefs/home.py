"""Where files of this user belong: the home directory, and for root the directories of the system."""

import os
from collections.abc import Mapping


def home(environment: Mapping[str, str]) -> str:
    """Return the home directory: ``HOME``, else that in the password database, else ``/``."""
    if path := environment.get("HOME"):
        return path
    import pwd  # noqa: PLC0415 - HOME is almost always set

    try:
        return pwd.getpwuid(os.getuid()).pw_dir or "/"
    except KeyError:
        return "/"


def owns_system() -> bool:
    """Return whether this is root with the system's directories: of the machine, or of a container.

    Root of a user namespace (user_namespaces(7), ``unshare -r``) on the files of the machine is a user like others.
    """
    if os.geteuid() != 0:
        return False
    try:
        return os.stat("/var").st_uid == 0
    except OSError:
        return True
