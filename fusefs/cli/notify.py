"""What a service tells systemd of itself (sd_notify(3))."""

import logging
import socket
from collections.abc import Mapping

log = logging.getLogger(__name__)


def notify(state: str, environment: Mapping[str, str]) -> None:
    """Send *state*, as ``READY=1``, to who has started this process, if that wants to know."""
    address = environment.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):  # an abstract one (unix(7))
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect(address)
            sender.sendall(state.encode())
    except OSError as error:
        log.warning("cannot say %s to the service manager: %s", state, error.strerror or error)
