"""The client of registries: connections, certificates and credentials of the places of repositories."""

from collections.abc import Sequence
from functools import partial

from fusefs.image.model import Traffic
from fusefs.sources.registry.authorization import Authorization
from fusefs.sources.registry.credentials import find_credentials
from fusefs.sources.registry.places import Place
from fusefs.sources.registry.repository import Repository
from fusefs.sources.registry.transfer import Transfers
from fusefs.sources.servers import certificates
from fusefs.sources.servers.connections import Connections
from fusefs.sources.settings import Settings
from fusefs.sources.tls import Tls


def transfers_of(places: Sequence[Place], settings: Settings, traffic: Traffic) -> Transfers:
    """Return the requests to all *places* of a repository; none is made yet.  They are counted in *traffic*."""
    return Client(settings, traffic).transfers(places)


class Client:
    """The client of several repositories; those of one registry share connections.  Safe under concurrency.

    Connections of a registry to its token server, and to where it redirects, have its TLS settings, too.
    """

    def __init__(self, settings: Settings, traffic: Traffic) -> None:
        """Make no request yet."""
        self._settings = settings
        self._traffic = traffic
        self._connections: dict[tuple[str, bool], Connections] = {}

    def transfers(self, places: Sequence[Place]) -> Transfers:
        """Return the requests to all *places* of a repository, or of the registry itself."""
        return Transfers([self._repository(place) for place in places], self._settings.timeout)

    def tls(self, place: Place, host: str) -> Tls:
        """Return the settings for connections to *host*: *place* itself, or where it leads."""
        insecure = place.insecure or self._settings.insecure
        return certificates.find_tls(host, self._settings.environment, place.name, place.host, insecure=insecure)

    def _connections_of(self, place: Place) -> Connections:
        key = place.name, place.insecure
        if key not in self._connections:
            made = Connections(partial(self.tls, place), self._settings.environment, self._traffic)
            self._connections.setdefault(key, made)  # that of another thread, perhaps
        return self._connections[key]

    def _repository(self, place: Place) -> Repository:
        settings, connections = self._settings, self._connections_of(place)
        find = partial(find_credentials, place.name, place.repository, settings.authfile, settings.environment)
        return Repository(place, connections, Authorization(place, connections, find))
