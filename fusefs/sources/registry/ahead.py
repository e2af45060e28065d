"""The connection to a registry that is begun before it is needed."""

from collections.abc import Mapping
from functools import partial

from fusefs.oci.reference import RegistryReference
from fusefs.sources.registry.places import Place, find_places
from fusefs.sources.servers.certificates import find_tls
from fusefs.sources.servers.early import connect_early


def connect_ahead(
    reference: RegistryReference, environment: Mapping[str, str], *, timeout: float | None, insecure: bool
) -> None:
    """Begin to connect to the registry of *reference*, unless it has mirrors, which have less time to connect.

    Raises as `find_places`.
    """
    places = find_places(reference, environment, insecure=insecure)
    if len(places) == 1:
        connect_to(places[0], environment, timeout=timeout, insecure=insecure)


def connect_to(place: Place, environment: Mapping[str, str], *, timeout: float | None, insecure: bool) -> None:
    """Begin to connect to *place*, unless that was begun; *timeout*: seconds for all addresses of the host."""
    insecure = insecure or place.insecure
    connect_early(
        place.host,
        timeout,
        environment,
        partial(find_tls, place.host, environment, place.name, place.host, insecure=insecure),
    )
