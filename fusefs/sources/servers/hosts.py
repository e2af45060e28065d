"""Which hosts are this machine."""

import re


def is_loopback(host: str) -> bool:
    """Return whether *host*, which may state a port, is this machine."""
    name = re.sub(r":[0-9]+$", "", host)
    return name in ("localhost", "[::1]") or re.fullmatch(r"127(\.[0-9]{1,3}){3}", name) is not None
