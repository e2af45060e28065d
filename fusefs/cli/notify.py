"""Service notifications for systemd (sd_notify(3))."""

from collections.abc import Mapping

from fusefs.log import logger

log = logger(__name__)


def notify(state: str, environment: Mapping[str, str]) -> None:
    """Send *state*, such as ``READY=1``, to the service manager, if ``NOTIFY_SOCKET`` names one."""
    address = environment.get("NOTIFY_SOCKET")
    if not address:
        return
    import socket  # noqa: PLC0415 - few mounts have a service manager

    if address.startswith("@"):  # an abstract address (unix(7))
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect(address)
            sender.sendall(state.encode())
    except OSError as error:
        log.warning("cannot send %s to the service manager: %s", state, error.strerror or error)
