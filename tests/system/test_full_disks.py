"""File systems without space under spools, plain tars, layer indexes and caches; only root may mount them."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fusefs.cache.store import Cache
from fusefs.content.spool import free_space, megabytes
from fusefs.errors import NoSpace
from fusefs.image.lazy_layers import Layers
from fusefs.image.uncompressed import uncompressed_tar
from tests.conftest import TakeWarnings
from tests.support.builders import END
from tests.support.caches import ABOUT, claim, keys
from tests.support.changesets import changeset, file
from tests.support.conformance import closing_what_is_opened, literal_layer
from tests.support.file_systems import tmpfs
from tests.support.images import LARGE, image_of, refused
from tests.support.spools import BIG, TAR, failure, fill, refusal, spool_in

MANY = changeset(*(file(f"{number}") for number in range(5000)))


@pytest.fixture(autouse=True)
def _closing() -> Iterator[None]:
    with closing_what_is_opened():
        yield


def test_a_full_file_system_is_an_error_with_both_numbers(tmp_path: Path) -> None:
    with tmpfs(tmp_path, "1m") as full, spool_in(full) as spool:
        message = refusal(lambda: fill(spool, needed=9_000_000))
        assert message == (
            f"not enough space for nginx in {full}: need 9.0 MB, have 1.0 MB; choose another directory with --tmpdir"
        )


def test_an_estimate_that_was_too_small_is_not_repeated(tmp_path: Path) -> None:
    with tmpfs(tmp_path, "1m") as full, spool_in(full) as spool:
        message = refusal(lambda: fill(spool, needed=1000))
        assert message == (
            f"not enough space for nginx in {full}: need 1.1 MB, have 1.0 MB; choose another directory with --tmpdir"
        )


def test_the_free_space_is_what_this_user_may_write(tmp_path: Path) -> None:
    with tmpfs(tmp_path, "3m") as empty:
        assert free_space(str(empty)) == 3 << 20


def test_a_full_file_system_is_named_and_nothing_is_left_in_it(tmp_path: Path) -> None:
    with tmpfs(tmp_path, "1m") as place:
        free = free_space(str(place))
        pieces = [BIG[start : start + 65536] for start in range(0, len(BIG), 65536)]
        error = failure(iter([TAR[:2048], *pieces, END]), place)
        assert isinstance(error, NoSpace)
        assert str(error).startswith(f"not enough space for x in {place}: need ")
        assert free_space(str(place)) == free


@pytest.mark.parametrize("compression", ["gzip", "zstd", "xz", "bzip2"])
def test_a_bomb_is_bounded_by_the_free_space(tmp_path: Path, compression: str) -> None:
    bomb = literal_layer(bytes(64 << 20), compression=compression)
    with tmpfs(tmp_path, "2m") as directory:
        free = free_space(str(directory))
        message = (
            f"somewhere has {megabytes(bomb.descriptor.size)} and decompresses to more than the {megabytes(free)} "
            f"that are free in {directory}; choose another directory with --tmpdir"
        )
        assert refused(bomb, str(directory)) == (NoSpace, message)
        assert free_space(str(directory)) == free


def test_a_layer_that_just_fits_is_no_bomb(tmp_path: Path) -> None:
    with tmpfs(tmp_path, "1m") as directory, closing_what_is_opened():
        data = bytes(free_space(str(directory)))
        assert uncompressed_tar(literal_layer(data, compression="gzip"), str(directory)).size == len(data)


@pytest.mark.parametrize("large", [b"", LARGE[: (16 << 20) + 512]], ids=["in a thread", "in a child"])
def test_want_of_space_is_no_space_and_the_next_one_tries_again(tmp_path: Path, large: bytes) -> None:
    with tmpfs(tmp_path, "256k"), image_of(large + MANY) as image:
        (tmp_path / "filler").write_bytes(bytes(200 << 10))
        layers = Layers(image, str(tmp_path))
        with pytest.raises(NoSpace, match=r"^cannot index layer 0.*: No space left on device"):
            layers.files(image.layers[0])
        os.unlink(tmp_path / "filler")
        subprocess.run(["mount", "-o", "remount,size=4m", tmp_path], check=True)
        assert layers.files(image.layers[0]).index.count > 5000


def test_a_full_disk_keeps_nothing_and_says_so(tmp_path: Path, take_warnings: TakeWarnings) -> None:
    with tmpfs(tmp_path, "1m"):
        cache = Cache(str(tmp_path / "cache"))
        entry, _ = claim(cache)
        file = entry.new_file()
        os.write(file, b"1")
        (tmp_path / "filler").write_bytes(bytes(os.statvfs(tmp_path).f_bavail * 4096))
        entry.complete({"about": ABOUT}, file)
        (warning,) = take_warnings()
        assert warning.endswith(": No space left on device")
        assert keys(tmp_path / "cache") == []
        with contextlib.suppress(OSError):
            os.close(file)
        del entry, cache
        for number in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/self/fd/{number}").startswith(str(tmp_path)):
                    os.close(int(number))
