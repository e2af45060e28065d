"""The files that have the data: each is a device of the file system, with a place in the unified address space."""

import os
from collections.abc import Iterable
from typing import NamedTuple

from fusefs.content.protocol import Content, FilePlace
from fusefs.erofs.limits import ADDRESS_SPACE, MAX_BLOCKS, MAX_DEVICES, Unfit, check_extent
from fusefs.erofs.ondisk import BLOCK, pack_device

_FEW = 8
"""Up to so many devices, data are found by their address: the kernel then searches all devices, one by one.

With more, entries of 8 bytes name the device.
"""


class DataFile(NamedTuple):
    """A file with data, in the order of the devices."""

    descriptor: int
    size: int
    """In bytes."""


class Device(NamedTuple):
    """A device: the whole blocks of a file."""

    number: int
    """From 1 on."""
    start: int
    """Its first block in the unified address space."""
    file: DataFile

    @property
    def blocks(self) -> int:
        """The number of whole blocks."""
        return self.file.size // BLOCK


class Devices:
    """The devices of one image."""

    def __init__(self, contents: Iterable[Content]) -> None:
        """Make a device of each local file that *contents* lie in."""
        self._by_descriptor: dict[int, Device] = {}
        self._next = MAX_BLOCKS
        for content in contents:
            place = content.file_place()
            if place is not None and place.descriptor not in self._by_descriptor:
                self._add(place.descriptor)
        self.indexed = len(self._by_descriptor) > _FEW
        """Whether entries have to name the device."""

    def _add(self, descriptor: int) -> None:
        file = DataFile(descriptor, os.fstat(descriptor).st_size)
        device = Device(len(self._by_descriptor) + 1, self._next, file)
        self._next += device.blocks + 1  # the kernel joins chunks with adjacent addresses
        if self._next > ADDRESS_SPACE or device.number > MAX_DEVICES:
            raise Unfit(f"its {device.number} files have more than 2 TiB, or are more than {MAX_DEVICES}")
        self._by_descriptor[descriptor] = device

    def __len__(self) -> int:
        return len(self._by_descriptor)

    def of(self, place: FilePlace, size: int) -> Device:
        """Return the device of *size* bytes at *place*, which must be inside its file."""
        device = self._by_descriptor.get(place.descriptor)
        if device is None:
            raise Unfit("a file lies outside of the image's own files")
        check_extent(place.offset, size, device.file.size)
        return device

    @property
    def files(self) -> tuple[DataFile, ...]:
        """The files, in the order of the devices."""
        return tuple(device.file for device in self._by_descriptor.values())

    def table(self) -> bytes:
        """Return the device table."""
        return b"".join(pack_device(device.blocks, device.start) for device in self._by_descriptor.values())
