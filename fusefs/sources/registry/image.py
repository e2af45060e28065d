"""An image in a registry: its documents are read now, its layers at their first access."""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from fusefs.errors import ImgfsError, RegistryError
from fusefs.image.attestations import attestations
from fusefs.image.model import Image, Referrers, SourcedImage, Traffic
from fusefs.log import logger
from fusefs.oci.documents import Descriptor
from fusefs.oci.reference import RegistryReference
from fusefs.oci.transport import REGISTRY, Source
from fusefs.sources.archive.candidates import candidates, choose
from fusefs.sources.archive.image_layout import candidate_image
from fusefs.sources.archive.layout import Layout
from fusefs.sources.archive.verification import verified
from fusefs.sources.registry.places import find_places
from fusefs.sources.registry.store import RegistryStore
from fusefs.sources.settings import Settings
from fusefs.text import printable
from fusefs.tree.once import Once

if TYPE_CHECKING:
    from fusefs.sources.registry.transfer import Transfers

log = logger(__name__)


def registry_image(reference: RegistryReference, argument: str, settings: Settings) -> SourcedImage:
    """Return the image of *reference*, which the user called *argument*.

    Raises RegistryError, Unavailable, InvalidImage, DigestMismatch or Unsupported.
    """
    places = find_places(reference, settings.environment, insecure=settings.insecure)
    traffic = Traffic()

    def client() -> "Transfers":
        if len(places) == 1 and "urllib3" not in sys.modules:  # a mirror has less time to connect
            from fusefs.sources.registry.ahead import connect_to  # noqa: PLC0415 - cached images need none

            connect_to(places[0], settings.environment, timeout=settings.timeout, insecure=settings.insecure)
        from fusefs.sources.registry.client import transfers_of  # noqa: PLC0415 - takes as long as connecting

        transfers = transfers_of(places, settings, traffic)
        settings.progress.waiting_began()
        return transfers

    name, asked = printable(argument), None if settings.offline else Once(client)
    store = RegistryStore(reference, name, asked, settings.cache(), settings.tmpdir)
    source = Source(argument, REGISTRY, f"{REGISTRY.prefix}{reference.name}", reference.tag or reference.digest)

    def read(top: Descriptor) -> Image:
        layout = Layout(store)
        chosen = choose(layout, candidates(layout, [top]), settings.platform)
        return candidate_image(store, chosen, source, reference.tag or "latest")

    with settings.progress.waiting(f"asking {printable(reference.host)} for {printable(reference.repository)}"):
        top, image, failure = _newest(store, read)
    image = image._replace(verified=True, repo_digests=(f"{reference.name}@{top.digest}",))

    def referrers() -> Referrers:
        if asked is None or failure:  # this was said already
            return Referrers((*attestations(image),), failure or "--offline asks no registry")
        from fusefs.sources.registry.referrers import referrers_of  # noqa: PLC0415 - needs the client

        with settings.progress.waiting(f"asking {printable(reference.host)} what refers to {name}"):
            try:
                found = referrers_of(image, asked.get())
            except ImgfsError as error:  # the client cannot be made
                found = Referrers((*attestations(image),), str(error))
        if found.flaw:
            log.warning("%s: cannot list all signatures, SBOMs and attestations: %s", name, found.flaw)
        return found

    cache = store.cache_of(image.manifest.descriptor)
    return SourcedImage(verified(image, settings), cache, store.layer_caches, referrers, traffic, store.documents)


def _newest(store: RegistryStore, read: Callable[[Descriptor], Image]) -> tuple[Descriptor, Image, str]:
    """Return the manifest or index that the reference names, and the image that *read* makes of it.

    If the registry fails before all documents are there, it is what the tag named before, if that is cached; and the
    failure, otherwise empty.
    """
    top = None
    try:
        top = store.top()
        image = read(top)
    except RegistryError as error:
        cached = store.cached_top()
        if cached is None or cached == top:
            raise
        log.warning("%s: using the cached image, which may be old: %s", store.name, error)
        return cached, read(cached), str(error)
    store.remember_top(top)
    return top, image, ""
