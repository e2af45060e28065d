"""Another user's FUSE server that claims to be imgfs and never answers: ``silent_server.py MOUNTPOINT USER [TYPE]``.

It reads every request, so a client that waits cannot be killed before this process is.
"""

import ctypes
import os
import struct
import sys

_INIT = 26
"""FUSE_INIT of include/uapi/linux/fuse.h; its answer is a fuse_out_header and a fuse_init_out."""
_IN, _OUT = struct.Struct("<IIQ"), struct.Struct("<IiQ")
_ANSWER = struct.pack("<IIIIHHII32x", 7, 31, 0, 0, 12, 9, 1 << 17, 1)


def main(mountpoint: str, user: str, file_system: str = "fuse.imgfs") -> None:
    """Mount for *user*, say "ready" and read for ever."""
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id={user},group_id={user},allow_other"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"hostile", os.fsencode(mountpoint), os.fsencode(file_system), 0, options.encode()) != 0:
        raise OSError(ctypes.get_errno(), "mount")
    print("ready", flush=True)
    while request := _next(device):
        _, operation, unique = _IN.unpack_from(request)
        if operation == _INIT:
            os.write(device, _OUT.pack(_OUT.size + len(_ANSWER), 0, unique) + _ANSWER)


def _next(device: int) -> bytes:
    try:
        return os.read(device, 1 << 18)
    except OSError:  # it is unmounted
        return b""


if __name__ == "__main__":
    main(*sys.argv[1:])
