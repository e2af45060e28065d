"""The frame of one mount: its mountpoint, what is said of it, and its end."""

import argparse
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING

from fusefs.cache.writeback import Writeback
from fusefs.cli.notify import notify
from fusefs.cli.output.stdout import Output, ReaderGone, say, seconds_since
from fusefs.cli.parsing.mount_options import libfuse_flags, number_option
from fusefs.errors import ImgfsError, MountError
from fusefs.log import begin_to_log
from fusefs.mount.mountpoint import Mountpoint, claim_mountpoint
from fusefs.sources.argument import public_name
from fusefs.text import printable

if TYPE_CHECKING:
    import logging

_NUMBERS = {"uid": 10, "gid": 10, "umask": 8}
"""Mount options that override the image's owners and modes, and the base of their numbers."""


class Mounting:
    """One mount, in the foreground or in the background."""

    def __init__(self, arguments: argparse.Namespace, environment: Mapping[str, str]) -> None:
        """Check the mount options, and claim the mountpoint."""
        self.arguments = arguments
        self.environment = environment
        self.flags = libfuse_flags(arguments.options)
        self.overrides = {name: number_option(arguments.options, name, base) for name, base in _NUMBERS.items()}
        self.mountpoint = self._claimed()
        self._path = arguments.mountpoint or self.mountpoint.path
        self._released = False
        self.all_of = ""
        """Where many images come from; empty for one."""
        self._began = time.monotonic()
        self.contents = ""
        """What a message says of the image: ``5 layers, 393 MB``."""
        self.writeback = Writeback()

    def _claimed(self) -> Mountpoint:
        if self.arguments.mountpoint is not None:
            return claim_mountpoint(self.arguments.mountpoint, self.environment)
        from fusefs.mount.made_mountpoint import make_mountpoint, safe_name  # noqa: PLC0415 - few mounts need it

        return make_mountpoint(safe_name(self.arguments.image), self.environment)

    def release(self) -> None:
        """Close the mountpoint, and with it the lock that keeps other processes from it."""
        if not self._released:
            self._released = True
            self.mountpoint.close()

    def remove_made(self) -> None:
        """Remove the mountpoint that was made for this mount, unless it is busy."""
        if self.arguments.mountpoint is None:
            from fusefs.mount.made_mountpoint import remove_mountpoint  # noqa: PLC0415 - few mounts need it

            remove_mountpoint(self._path, self.environment)

    def serve(self, serve: Callable[[Callable[[], None]], None], log: "logging.Handler | None") -> None:
        """Call *serve*, in the background or here, and say when it is ready; *log* is open, None for the default."""
        begin_to_log()  # FUSE may log
        if log is None and not self.arguments.foreground:
            log = self.open_log()
        if log is None or self.arguments.foreground:
            if log:
                import logging  # noqa: PLC0415 - mounts without a log need it only for messages

                logging.getLogger().addHandler(log)
            serve(partial(self._ready_in_foreground, log))
        else:
            from fusefs.mount.background import in_background  # noqa: PLC0415 - kernel mounts have no process
            from fusefs.sources.handover import hand_over  # noqa: PLC0415

            hand_over()
            in_background(serve, log)
            self._announce(log)

    def open_log(self) -> "logging.Handler":
        """Return the log that the options name."""
        from fusefs.cli.output.logs import open_log  # noqa: PLC0415 - kernel mounts have no log

        return open_log(self.arguments.log_file, self.environment)

    def mount_by_kernel(self, root: int, log: "logging.Handler | None") -> None:
        """Attach the kernel mount with the open *root*, and say so; in the foreground, wait for the unmount."""
        if self.writeback.idle and not self.arguments.foreground:
            self._attach(root)
            self._announce(None)
        else:
            self.serve(partial(self._serve_by_kernel, root), log)

    def _attach(self, root: int) -> None:
        """Attach the kernel mount with the open *root*; MountError if something is mounted there."""
        from fusefs.mount.kernel.attach import attach  # noqa: PLC0415 - other mounts do not need it

        if self.mountpoint.covers():
            raise MountError(f"cannot mount on {printable(self.mountpoint.path)}: something is mounted there by now")
        attach(root, self.mountpoint.directory)

    def _serve_by_kernel(self, root: int, ready: Callable[[], None]) -> None:
        """Attach the kernel mount, call *ready*, drain background writes; in the foreground, wait for the unmount."""
        from fusefs.mount.kernel.hold import hold_until_unmounted, stop_signals_noted  # noqa: PLC0415 - has a process
        from fusefs.mount.mountinfo import mount_of  # noqa: PLC0415

        none: Sequence[int] = ()
        with stop_signals_noted() if self.arguments.foreground else nullcontext(none) as noted:
            try:
                self._attach(root)
                mount = mount_of(root)
                os.close(root)
                self.release()
                ready()
                if mount is not None and self.arguments.foreground:
                    self.writeback.start()  # the next mount needs what is cached, and not only when this one ends
                    hold_until_unmounted(mount, noted)
            finally:
                self.finish()

    def finish(self) -> None:
        """Drain the background writes at the end."""
        if self.arguments.foreground:
            notify("STOPPING=1", self.environment)  # background writes may still have to reach the disk
        self.writeback.finish()
        self.remove_made()  # unless the kernel has taken over: then it is busy

    def _ready_in_foreground(self, log: "logging.Handler | None") -> None:
        self._announce(log)
        notify("READY=1", self.environment)

    def _announce(self, log: "logging.Handler | None") -> None:
        """Say that the image is mounted; as a helper of mount(8), only with ``--verbose``.

        Of a mountpoint that was made, standard output gets the path, and nothing else is said without ``--verbose``.
        """
        arguments = self.arguments
        if arguments.mountpoint is None:
            self._print_path()
            if not arguments.verbose:
                return
        shown = f"all of {self.all_of}" if self.all_of else arguments.image
        if not arguments.quiet and (arguments.verbose or not arguments.as_helper):
            where = f"; log: {log.name}" if log and log.name and (arguments.verbose or _is_new(log)) else ""
            mounted = f"mounted {printable(public_name(shown))} on {printable(self._path)}"
            contents_shown = f" ({self.contents})" if self.contents else ""
            say(f"{mounted} in {seconds_since(self._began)}{contents_shown}{where}")

    def _print_path(self) -> None:
        output = Output(self.environment)
        try:
            output.raw(os.fsencode(self._path) + b"\n")
            output.finish()
        except (ImgfsError, ReaderGone):  # nobody would know where it is
            from fusefs.mount.unmounting import unmount_all  # noqa: PLC0415 - few mounts need it

            unmount_all([self._path], lazily=True)
            raise


def _is_new(log: "logging.Handler") -> bool:
    from fusefs.cli.output.logs import is_new  # noqa: PLC0415 - kernel mounts have no log

    return is_new(log)
