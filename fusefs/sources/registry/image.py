"""An image in a registry: its documents are read now, its layers at their first access."""

from typing import TYPE_CHECKING

from fusefs.errors import Unavailable
from fusefs.image.model import Referrer, SourcedImage, Traffic
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


def registry_image(reference: RegistryReference, argument: str, settings: Settings) -> SourcedImage:
    """Return the image of *reference*, which the user called *argument*.

    Raises RegistryError, Unavailable, InvalidImage, DigestMismatch or Unsupported.
    """
    places = find_places(reference, settings.environment, insecure=settings.insecure)
    traffic = Traffic()

    def client() -> "Transfers":
        from fusefs.sources.registry.client import transfers_of  # noqa: PLC0415 - cached images need no urllib3

        settings.progress.waiting_began()
        return transfers_of(places, settings, traffic)

    name, asked = printable(argument), None if settings.offline else Once(client)
    store = RegistryStore(reference, name, asked, settings.cache(), settings.tmpdir)
    source = Source(argument, REGISTRY, f"{REGISTRY.prefix}{reference.name}", reference.tag or reference.digest)
    with settings.progress.waiting(f"asking {printable(reference.host)} for {printable(reference.repository)}"):
        top = store.top()
        layout = Layout(store)
        chosen = choose(layout, candidates(layout, [top]), settings.platform)
        image = candidate_image(store, chosen, source, reference.tag or "latest")
    image = image._replace(verified=True, repo_digests=(f"{reference.name}@{top.digest}",))

    def referrers() -> tuple[Referrer, ...]:
        from fusefs.sources.registry.referrers import referrers_of  # noqa: PLC0415 - needs the client

        if asked is None:
            raise Unavailable(f"only the registry knows what refers to {name}, and --offline asks no registry")
        with settings.progress.waiting(f"asking {printable(reference.host)} what refers to {name}"):
            return referrers_of(image, asked.get())

    cache = store.cache_of(image.manifest.descriptor)
    return SourcedImage(verified(image, settings), cache, store.layer_caches, referrers, traffic)
