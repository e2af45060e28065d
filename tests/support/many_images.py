"""An engine of many images, which come, go and move: a real HTTP server that counts what it is asked for."""

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.builders import Archive, sha256
from tests.support.fake_engine import Answer, Engine, fake_engine, json_answer

CREATED = 1_600_000_000


def image_id(archive: Archive) -> str:
    """Return the ID of an image."""
    return sha256(archive.config_data)


@dataclass
class ManyImages:
    """What the engine has: images by their references, and others without a name."""

    names: dict[str, Archive] = field(default_factory=dict)
    unnamed: list[Archive] = field(default_factory=list)
    gate: threading.Event | None = None
    """Waited for before an image is sent."""
    broken: set[str] = field(default_factory=set)
    """IDs of images that the engine fails to save."""
    lists: bool = True
    """Whether it says what it has."""

    def images(self) -> dict[str, tuple[Archive, list[str]]]:
        """Return all images with their names, by ID."""
        found: dict[str, tuple[Archive, list[str]]] = {}
        for archive in self.unnamed:
            found[image_id(archive)] = archive, []
        for name, archive in self.names.items():
            found.setdefault(image_id(archive), (archive, []))[1].append(name)
        return found

    def answer(self, path: str) -> Answer:
        """Return the answer to a request for *path*."""
        image = path.partition("/images/")[2].partition("?")[0]
        images = self.images()
        if image == "json":
            if not self.lists:
                return json_answer({"message": "not now"}, 500)
            return json_answer(
                [
                    {"Id": key, "RepoTags": names, "RepoDigests": [], "Created": CREATED}
                    for key, (_, names) in images.items()
                ]
            )
        name, _, what = image.rpartition("/")
        key = next((key for key, (_, names) in images.items() if name in (key, *names)), "")
        if not key:
            return json_answer({"message": f"No such image: {name}"}, 404)
        archive, names = images[key]
        if what == "json":
            layers = json.loads(archive.config_data)["rootfs"]["diff_ids"]
            rootfs = {"Type": "layers", "Layers": layers}
            return json_answer({"Id": key, "RepoTags": names, "Size": 10_000, "RootFS": rootfs})
        if key in self.broken:
            return json_answer({"message": "no room"}, 500)
        return Answer(parts=[archive.data()], gate=self.gate)


class ManyImagesEngine:
    """The server."""

    def __init__(self, engine: Engine, images: ManyImages) -> None:
        self.engine = engine
        self.images = images
        self.host = engine.host

    @property
    def lists(self) -> int:
        """How often it was asked what it has."""
        return sum(path.endswith("/images/json") for path in self.engine.asked)

    @property
    def saves(self) -> int:
        """How often it was asked for an image."""
        return sum(path.partition("?")[0].endswith("/get") for path in self.engine.asked)


@contextlib.contextmanager
def many_images(socket: Path, images: ManyImages) -> Iterator[ManyImagesEngine]:
    """Serve *images* on *socket* for as long as the block takes."""
    with fake_engine(socket=socket) as engine:

        def answer(path: str) -> Answer:
            engine.asked.append(path)
            if path.endswith("/version"):
                return engine.script.version
            return images.answer(path)

        engine.answer = answer  # type: ignore[method-assign]
        yield ManyImagesEngine(engine, images)
