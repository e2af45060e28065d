"""The TLS settings of a registry: ``certs.d`` of containers and docker (containers-certs.d(5))."""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from fusefs.errors import UsageError
from fusefs.home import home
from fusefs.sources.tls import Tls


def find_tls(host: str, environment: Mapping[str, str], *more_hosts: str, insecure: bool) -> Tls:
    """Return the settings for *host*, with its port if it states one; those of *more_hosts* apply besides.

    Of each host, the first of ``~/.config/containers``, ``/etc/containers`` and ``/etc/docker`` that has a directory
    for exactly this host counts: ``*.crt`` are trusted authorities, each ``*.cert`` with ``*.key`` is our certificate.
    """
    folders = [_folder(each, environment) for each in dict.fromkeys((host, *more_hosts))]
    more = [path / name for path, names in folders for name in names if name.endswith(".crt")]
    pairs = [pair for path, names in folders for pair in _pairs(path, names)]
    return Tls(None, pairs[0] if pairs else None, not insecure, (*more,), (*pairs[1:],))


def _folder(host: str, environment: Mapping[str, str]) -> tuple[Path, list[str]]:
    """Return the directory of *host*, and the names in it; none if there is no directory."""
    # It may be that of a redirect, whose target anyone may have chosen.
    if "/" in host or not host.isprintable() or host in ("", ".", ".."):
        return Path(), []
    config = environment.get("XDG_CONFIG_HOME") or f"{home(environment)}/.config"
    for base in (f"{config}/containers", "/etc/containers", "/etc/docker"):
        folder = Path(base, "certs.d", host)
        with contextlib.suppress(OSError):  # missing, or not for this user
            return folder, sorted(os.listdir(folder))
    return Path(), []


def _pairs(folder: Path, names: list[str]) -> list[tuple[Path, Path]]:
    """Return the files of our certificates and their keys."""
    for end, other in ((".cert", ".key"), (".key", ".cert")):
        for name in names:
            wanted = name.removesuffix(end) + other
            if name.endswith(end) and wanted not in names:
                raise UsageError(f"TLS needs both files: {folder / wanted} is missing")
    own = [folder / name for name in names if name.endswith(".cert")]
    return [(path, path.with_suffix(".key")) for path in own]
