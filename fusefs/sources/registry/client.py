"""The client of the registries that may have one image: its places, their certificates and credentials."""

from collections.abc import Sequence
from functools import partial

from fusefs.image.model import Traffic
from fusefs.sources.registry import certificates
from fusefs.sources.registry.authorization import Authorization
from fusefs.sources.registry.connections import Connections
from fusefs.sources.registry.credentials import find_credentials
from fusefs.sources.registry.places import Place
from fusefs.sources.registry.repository import Repository
from fusefs.sources.registry.transfer import Transfers
from fusefs.sources.settings import Settings
from fusefs.sources.tls import Tls


def transfers_of(places: Sequence[Place], settings: Settings, traffic: Traffic) -> Transfers:
    """Return the requests to all *places* of a repository; none is made yet.  They are counted in *traffic*."""
    environment = settings.environment
    insecure = {place.host for place in places if place.insecure}

    def find_tls(host: str) -> Tls:
        return certificates.find_tls(host, environment, insecure=host in insecure or settings.insecure)

    connections = Connections(find_tls, environment, traffic)

    def repository(place: Place) -> Repository:
        find = partial(find_credentials, place.name, place.repository, settings.authfile, environment)
        return Repository(place, connections, Authorization(place, connections, find))

    return Transfers([repository(place) for place in places], settings.timeout)
