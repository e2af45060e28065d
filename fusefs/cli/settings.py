"""The settings of the image sources and the cache, from options and environment."""

import argparse
import sys
from collections.abc import Callable, Mapping

from fusefs.cache.writeback import Writeback
from fusefs.cli.cache_folder import opening_cache
from fusefs.cli.output.progress import NONE, progress_on
from fusefs.progress import Observed
from fusefs.sources.settings import Settings, absolute, platform_named, timeout_named, tmpdir_named

_PATHS = (
    "CONTAINERS_REGISTRIES_CONF", "DOCKER_CONFIG", "HOME", "REGISTRY_AUTH_FILE", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"
)  # fmt: skip
"""Variables with paths of files that are read again later, when the current directory of a mount is another one."""


def settings_of(
    arguments: argparse.Namespace,
    environment: Mapping[str, str],
    writeback: Writeback,
    waiting_began: Callable[[], None] = lambda: None,
) -> Settings:
    """Return the settings of the image sources and the cache, from the options and the environment.

    *waiting_began* is called when a source begins to wait.
    """
    shown = progress_on(
        sys.stderr,
        way=NONE if arguments.quiet else arguments.progress,
        dumb=environment.get("TERM") == "dumb",
    )
    return Settings(
        host=arguments.host,
        context=arguments.context,
        tmpdir=tmpdir_named(arguments.tmpdir, environment),
        shared_blobs=arguments.shared_blob_dir and absolute(arguments.shared_blob_dir),
        verify=arguments.verify,
        platform=platform_named(arguments.platform),
        environment=_with_absolute_paths(environment),
        progress=Observed(shown, waiting_began),
        timeout=timeout_named(arguments.timeout),
        authfile=arguments.authfile and absolute(arguments.authfile),
        insecure=arguments.insecure,
        offline=arguments.offline,
        cache=opening_cache(arguments, environment, writeback),
    )


def _with_absolute_paths(environment: Mapping[str, str]) -> Mapping[str, str]:
    paths = {name: absolute(value) for name in _PATHS if (value := environment.get(name)) and value[0] != "/"}
    return {**environment, **paths} if paths else environment
