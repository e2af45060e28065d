"""The TLS settings of a registry: ``certs.d`` of containers and docker (containers-certs.d(5))."""

import os
from collections.abc import Mapping
from pathlib import Path

from fusefs.errors import UsageError
from fusefs.home import home
from fusefs.sources.tls import Tls


def find_tls(host: str, environment: Mapping[str, str], *, insecure: bool) -> Tls:
    """Return the settings for *host*, with its port if it states one.

    The first of ``~/.config/containers``, ``/etc/containers`` and ``/etc/docker`` that has a directory for exactly
    this host counts: ``*.crt`` are trusted authorities, ``*.cert`` with ``*.key`` is our certificate.
    """
    if "/" in host or host in ("", ".", ".."):  # of a redirect, whose target anyone may have chosen
        return Tls(None, None, verify=not insecure)
    config = environment.get("XDG_CONFIG_HOME") or f"{home(environment)}/.config"
    for base in (f"{config}/containers", "/etc/containers", "/etc/docker"):
        folder = Path(base, "certs.d", host)
        try:
            names = sorted(os.listdir(folder))
        except OSError:  # missing, or not for this user
            continue
        more = tuple(folder / name for name in names if name.endswith(".crt"))
        clients = [folder / name for name in names if name.endswith(".cert")]
        for client in clients:
            if client.with_suffix(".key").name not in names:
                raise UsageError(f"TLS needs both files: {client.with_suffix('.key')} is missing")
        pair = (clients[0], clients[0].with_suffix(".key")) if clients else None
        return Tls(None, pair, verify=not insecure, more=more)
    return Tls(None, None, verify=not insecure)
