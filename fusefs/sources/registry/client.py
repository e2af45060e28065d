"""The client of registries: connections, certificates and credentials of the places of repositories."""

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
    return Client(settings, traffic).transfers(places)


class Client:
    """The client of several repositories, which share connections.  Safe under concurrency."""

    def __init__(self, settings: Settings, traffic: Traffic) -> None:
        """Make no request yet."""
        self._settings = settings
        self._insecure: set[str] = set()
        self._connections = Connections(self._find_tls, settings.environment, traffic)

    def transfers(self, places: Sequence[Place]) -> Transfers:
        """Return the requests to all *places* of a repository, or of the registry itself."""
        self._insecure.update(place.host for place in places if place.insecure)
        return Transfers([self._repository(place) for place in places], self._settings.timeout)

    def _find_tls(self, host: str) -> Tls:
        insecure = host in self._insecure or self._settings.insecure
        return certificates.find_tls(host, self._settings.environment, insecure=insecure)

    def _repository(self, place: Place) -> Repository:
        settings, connections = self._settings, self._connections
        find = partial(find_credentials, place.name, place.repository, settings.authfile, settings.environment)
        return Repository(place, connections, Authorization(place, connections, find))
