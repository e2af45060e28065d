"""What images in registries have in the cache for themselves: documents and layers may belong to several of them."""

import contextlib
from collections.abc import Collection, Iterable, Sequence

from fusefs.cache.entry import BLOB
from fusefs.cache.store import BLOBS, TAGS, Cache
from fusefs.cache.survey import ListedEntry
from fusefs.errors import ImgfsError
from fusefs.oci import documents

_NO_DOCUMENTS = documents.LAYERS | documents.IMAGE_CONFIGS
"""Media types of blobs that are not read here: they name no others."""

Place = tuple[str, str]
"""The kind and the key of a cache entry."""


class CachedImages:
    """The entries of a cache, and which others each of them names: a tag, an index or a manifest does."""

    def __init__(self, cache: Cache, entries: Sequence[ListedEntry]) -> None:
        """Read the tags, indexes and manifests among *entries*, which are all of *cache*."""
        self._used = {(entry.kind, entry.key) for entry in entries if entry.in_use}
        self._named: dict[Place, set[Place]] = {}
        places = {entry.about["id"]: (entry.kind, entry.key) for entry in entries if entry.kind == BLOBS}
        for entry in entries:
            named = _digests_in(cache, entry)
            self._named[entry.kind, entry.key] = {places[digest] for digest in named if digest in places}

    def own(self, blobs: Iterable[Place]) -> set[Place]:
        """Return *blobs* without those that other manifests or indexes in the cache need, or their tags."""
        found = set(blobs)
        tags = {place for place, named in self._named.items() if place[0] == TAGS and named & found}
        return found - self._reached(self._named.keys() - found - tags)

    def removable(self, images: Iterable[Place]) -> set[Place]:
        """Return what *images* have and no other image; nothing of one of which a mount or a command uses something.

        A tag stands for what it names, and other tags of that are removed with it.
        """
        tops = set(images)
        tops |= {top for place in tops if place[0] == TAGS for top in self._named[place]}
        tops |= {place for place, named in self._named.items() if place[0] == TAGS and named & tops}
        used = self._used & self._alone(tops)
        return self._alone({top for top in tops if not used & self._reached({top})})

    def _alone(self, tops: Collection[Place]) -> set[Place]:
        """Return *tops*, and what is reached from them alone."""
        reached = self._reached(tops)
        return reached - self._reached(self._named.keys() - reached, but=tops)

    def _reached(self, starts: Iterable[Place], but: Collection[Place] = ()) -> set[Place]:
        """Return *starts* and what they name, directly or not, without going through those in *but*."""
        reached, waiting = set[Place](), list(starts)
        while waiting:
            place = waiting.pop()
            if place not in reached and place not in but:
                reached.add(place)
                waiting += self._named[place]
        return reached


def _digests_in(cache: Cache, entry: ListedEntry) -> Iterable[str]:
    """Return the digests that a tag, an index or a manifest names; none for another entry, or a damaged one."""
    if entry.kind == TAGS:
        return (entry.about["id"],)
    about = entry.about
    large = about.get("blobSize", 0) > documents.DOCUMENT_LIMIT
    if entry.kind != BLOBS or about.get("mediaType") in _NO_DOCUMENTS or large:
        return ()
    data, where = cache.read(BLOBS, entry.key, BLOB), about["id"]
    with contextlib.suppress(ImgfsError):
        media_type = documents.media_type_of(data, where)
        if media_type in documents.INDEXES:
            return [str(found.digest) for found in documents.parse_index(data, where).manifests]
        manifest = documents.parse_manifest(data, where)
        return [str(found.digest) for found in (manifest.config, *manifest.layers)]
    return ()
