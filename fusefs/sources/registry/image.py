"""An image in a registry: its documents are read now, its layers at their first access."""

from functools import partial

from fusefs.image.model import SourcedImage
from fusefs.oci.reference import RegistryReference
from fusefs.oci.transport import REGISTRY, Source
from fusefs.sources.archive.candidates import candidates, choose
from fusefs.sources.archive.image_layout import candidate_image
from fusefs.sources.archive.layout import Layout
from fusefs.sources.archive.verification import verified
from fusefs.sources.registry import certificates
from fusefs.sources.registry.authorization import Authorization
from fusefs.sources.registry.connections import Connections
from fusefs.sources.registry.credentials import find_credentials
from fusefs.sources.registry.places import Place, find_places
from fusefs.sources.registry.repository import Repository
from fusefs.sources.registry.store import RegistryStore
from fusefs.sources.registry.transfer import Transfers
from fusefs.sources.settings import Settings
from fusefs.sources.tls import Tls
from fusefs.text import printable


def registry_image(reference: RegistryReference, argument: str, settings: Settings) -> SourcedImage:
    """Return the image of *reference*, which the user called *argument*.

    Raises RegistryError, Unavailable, InvalidImage, DigestMismatch or Unsupported.
    """
    transfers = None if settings.offline else _transfers(reference, settings)
    store = RegistryStore(reference, printable(argument), transfers, settings.cache(), settings.tmpdir)
    source = Source(argument, REGISTRY, f"{REGISTRY.prefix}{reference.name}", reference.tag or reference.digest)
    settings.progress.waiting_began()
    with settings.progress.waiting(f"asking {printable(reference.host)} for {printable(reference.repository)}"):
        top = store.top()
        layout = Layout(store)
        chosen = choose(layout, candidates(layout, [top]), settings.platform)
        image = candidate_image(store, chosen, source, reference.tag or "latest")
    image = image._replace(verified=True, repo_digests=(f"{reference.name}@{top.digest}",))
    return SourcedImage(verified(image, settings), layer_caches=store.layer_caches)


def _transfers(reference: RegistryReference, settings: Settings) -> Transfers:
    """Return the requests to all places of the repository; none is made yet."""
    environment = settings.environment
    places = find_places(reference, environment, insecure=settings.insecure)
    insecure = {place.host for place in places if place.insecure}

    def find_tls(host: str) -> Tls:
        return certificates.find_tls(host, environment, insecure=host in insecure or settings.insecure)

    connections = Connections(find_tls, environment)

    def repository(place: Place) -> Repository:
        find = partial(find_credentials, place.name, place.repository, settings.authfile, environment)
        return Repository(place, connections, Authorization(place, connections, find))

    return Transfers([repository(place) for place in places], settings.timeout)
