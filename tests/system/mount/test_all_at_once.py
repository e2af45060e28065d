"""``imgfs mount --all`` with as many images as large engines have: bounds of time, requests and memory."""

from tests.drills.many_at_once import look_at_many
from tests.support.builders import Archive
from tests.support.changesets import changeset, file
from tests.support.many_images import ManyImages, many_images
from tests.support.mounts import Bench

_IMAGES = 500
_AT_ONCE = 50


def test_five_hundred_images_are_listed_with_one_request_and_fifty_are_opened_at_once(imgfs: Bench) -> None:
    names = [f"team{number % 10}/app{number}:1" for number in range(_IMAGES)]
    images = ManyImages({name: Archive(layers=(changeset(file("name", name.encode())),)) for name in names})
    with many_images(imgfs.folder / "engine.sock", images) as engine:
        found = look_at_many(imgfs, engine.host, names, _AT_ONCE, lambda: [*engine.engine.asked])
    assert found.lists <= 1 + found.listing // 2
    assert (found.saves_for_names, found.saves) == (0, _AT_ONCE)
    assert found.resident < 50_000
    assert found.unfair <= 3
