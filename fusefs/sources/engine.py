"""An image in an engine: Docker's or Podman's, through the Docker Engine API.

The engine is asked once what the image is (inspect) and then for exactly that (save, by image ID).
What it sends is spooled, and indexed and hashed as it passes.  The only importer of the SDK.
"""

import json
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import docker
import docker.constants
import docker.tls
import docker.transport
import requests
import requests.utils
import urllib3.exceptions
from docker import errors as sdk
from docker.utils import version_gte

from fusefs.cacheentry import Entry
from fusefs.errors import EngineError, InvalidImage, NoSpace, Unavailable, printable
from fusefs.image import Image
from fusefs.platforms import Platform
from fusefs.progress import Advance
from fusefs.sources.endpoint import Endpoint
from fusefs.sources.inspection import NONSENSE, Inspected, Target, parse_inspected, saved_image
from fusefs.sources.kept_image import Asked, engine_entry, keep_saved
from fusefs.sources.saved import SavedTar, save
from fusefs.sources.settings import Settings
from fusefs.spool import Spool, free_space, no_space

log = logging.getLogger(__name__)

_ANSWER_TIMEOUT = 60
"""Seconds for a connection, and for the answer to everything but a save."""
_CHUNK = 1 << 20
_PLATFORM_VERSION = "1.48"
"""The first version of the API whose save knows platforms; earlier ones ignore the word."""
_ERROR_TAIL = 1 << 14
"""Bytes at the end of a stream that may hold the engine's error."""
_JSON_ERROR = re.compile(rb'\{\s*"(?:errorDetail|error|message|cause)"')

_FAILURES = (requests.RequestException, urllib3.exceptions.HTTPError, OSError)
"""What the SDK lets through when a connection fails."""


def engine_image(endpoint: Endpoint, name: str, settings: Settings, asked: Asked | None = None) -> Image:
    """Return the image *name*, every digest checked: kept in the cache, or saved now.

    *asked* is what is known already.  Raises EngineError, Unavailable, NoSpace, DigestMismatch, InvalidImage or
    Unsupported.
    """
    with closing(_connect(endpoint)) as client:
        engine = _Engine(client, endpoint)
        if asked is None:
            target = Target(name, settings.platform, engine.inspect(name))
            asked = Asked(target, engine_entry(target, settings))
        match asked.found:
            case Image() as image:
                return image
            case Entry() as entry:
                try:
                    return _saved_to_keep(engine, asked.target, settings, entry)
                except NoSpace as error:
                    log.info("%s is not kept: %s", printable(name), error)
        return _saved(engine, asked.target, settings)


def _saved(engine: "_Engine", target: Target, settings: Settings) -> Image:
    """Save the image into a spool file."""
    name, need, free = printable(target.name), target.inspected.size, free_space(settings.tmpdir)
    if need > free:
        raise no_space(name, settings.tmpdir, need, free)
    with Spool(settings.tmpdir, name) as spool:
        saved = engine.save(target, settings, spool)
        return saved_image(saved, target, only=engine.picks(target.platform))


def _saved_to_keep(engine: "_Engine", target: Target, settings: Settings, entry: Entry) -> Image:
    """Save the image into *entry*, where it is kept once someone has the time; NoSpace if it has no room there."""
    name, need = printable(target.name), target.inspected.size
    only = engine.picks(target.platform)
    try:
        room = entry.room(need)
        if not room:
            raise no_space(name, entry.path, need, room)
        with Spool(entry.path, name, entry.new_file(), room) as spool:
            saved = engine.save(target, settings, spool)
            image = saved_image(saved, target, only=only)
    except BaseException:
        entry.abandon()
        raise
    entry.later(lambda: keep_saved(entry, saved, target, only=only))
    return replace(image, entry=entry)


def _connect(endpoint: Endpoint) -> docker.APIClient:
    """Return a client that speaks the engine's version of the API."""
    try:
        # The version is asked for without one: engines refuse both too old and too new a client.
        with closing(_client(endpoint, docker.constants.MINIMUM_DOCKER_API_VERSION)) as client:
            version = client.version(api_version=False)
        if not isinstance(version, dict) or not isinstance(version.get("ApiVersion"), str):
            msg = f"no Docker API at {endpoint.shown}: it states no API version"
            raise EngineError(msg)
        return _client(endpoint, version["ApiVersion"])
    except (sdk.DockerException, *_FAILURES) as error:
        raise _unreachable(endpoint, error) from None


def _client(endpoint: Endpoint, version: str) -> docker.APIClient:
    """Return a client for this *version* of the API; connects to nothing yet."""
    tls: bool | docker.tls.TLSConfig = False
    if endpoint.tls is not None:
        files = endpoint.tls
        pair = (str(files.client[0]), str(files.client[1])) if files.client else None
        ca = str(files.ca) if files.ca and files.verify else None
        tls = docker.tls.TLSConfig(client_cert=pair, ca_cert=ca, verify=files.verify)
        if not files.verify:
            warnings.simplefilter("ignore", urllib3.exceptions.InsecureRequestWarning)
    if endpoint.host.startswith("ssh://") and not hasattr(docker.transport, "SSHHTTPAdapter"):
        msg = f"{endpoint.shown}: ssh needs an extra; pip install 'imgfs[ssh]'"
        raise EngineError(msg)
    client = docker.APIClient(base_url=endpoint.host, version=version, tls=tls, timeout=_ANSWER_TIMEOUT)
    # With trust_env a REQUESTS_CA_BUNDLE in the environment overrides the endpoint's own CA.
    client.trust_env = False
    if client.base_url.startswith(("http://", "https://")):
        client.proxies.update(requests.utils.get_environ_proxies(client.base_url))
    return client


@dataclass(frozen=True, slots=True)
class _Engine:
    """A connection to an engine."""

    client: docker.APIClient
    endpoint: Endpoint

    def picks(self, platform: Platform | None) -> bool:
        """Return whether a save is asked for the *platform*."""
        return platform is not None and version_gte(self.client.api_version, _PLATFORM_VERSION)

    def inspect(self, name: str) -> Inspected:
        """Return what the engine says of the image *name*."""
        shown = self.endpoint.shown
        try:
            answer: Any = self.client.inspect_image(name)  # type: ignore[no-untyped-call]
        except sdk.ImageNotFound:
            msg = f"no image {printable(name)} in the engine at {shown}; docker pull {printable(name)} fetches it"
            raise Unavailable(msg) from None
        except sdk.APIError as error:
            raise self._refused(name, error) from None
        except (ValueError, *_FAILURES) as error:
            raise _unreachable(self.endpoint, error) from None
        try:
            return parse_inspected(answer)
        except NONSENSE as error:
            msg = f"the engine at {shown} describes {printable(name)} in no way that makes sense: {error!r}"
            raise EngineError(msg) from None

    def save(self, target: Target, settings: Settings, spool: Spool) -> SavedTar:
        """Receive the image; EngineError when the engine says in its stream that it failed."""
        shown, progress = self.endpoint.shown, settings.progress
        damage: InvalidImage | None = None
        try:
            settings.meanwhile()
            with progress.waiting(f"the engine prepares {spool.name}"):
                response = self._begin(target, spool.name)
            size = target.inspected.size
            with response, progress.transfer(f"saving {spool.name}", size) as advance:
                saved = save(_received(response, advance), spool, size)
        except InvalidImage as error:
            damage = error
        except _FAILURES as error:
            after = f"after {spool.written} bytes: {_reason(error)}"
            msg = f"the engine at {shown} stopped sending {spool.name} {after}"
            raise EngineError(msg) from None
        reported = _error_in_stream(spool)
        if reported is not None:
            msg = f"the engine at {shown} failed to save {spool.name}: {printable(reported)}"
            raise EngineError(msg)
        if damage is not None:
            raise damage
        saved.log_warnings()
        return saved

    def _begin(self, target: Target, name: str) -> requests.Response:
        """Return the answer to a save once it has begun; classic engines prepare the whole image before that.

        The SDK's own `get_image` knows no platform, and hands on pieces of 32 KiB, which take twice
        as long to write.
        """
        client, platform = self.client, target.platform
        parameters = {}
        if platform is not None and self.picks(platform):
            wanted = {"os": platform.os, "architecture": platform.architecture, "variant": platform.variant}
            parameters["platform"] = json.dumps({key: value for key, value in wanted.items() if value})
        url = f"{client.base_url}/v{client.api_version}/images/{target.inspected.image_id}/get"
        response = client.get(url, params=parameters, stream=True, timeout=(_ANSWER_TIMEOUT, None))
        try:
            response.raise_for_status()
        except requests.HTTPError as error:
            try:
                sdk.create_api_error_from_http_exception(error)
            except sdk.APIError as refusal:
                raise self._refused(name, refusal) from None
        return response

    def _refused(self, name: str, error: sdk.APIError) -> EngineError:
        why = error.explanation or (error.response.reason if error.response is not None else error)
        return EngineError(f"the engine at {self.endpoint.shown} refuses {printable(name)}: {printable(str(why))}")


def _received(response: requests.Response, advance: Advance) -> Iterator[bytes]:
    while chunk := response.raw.read(_CHUNK, decode_content=False):
        yield chunk
        advance(len(chunk))


def _error_in_stream(spool: Spool) -> str | None:
    """Return the error that an engine wrote as JSON at the end of its stream, under HTTP 200."""
    tail = bytes(spool.read_at(max(0, spool.written - _ERROR_TAIL), _ERROR_TAIL))
    for match in _JSON_ERROR.finditer(tail):
        try:
            document = json.loads(tail[match.start() :])
        except (ValueError, RecursionError):
            continue
        for key in ("error", "message", "cause"):
            if isinstance(document.get(key), str):
                return str(document[key])
    return None


def _unreachable(endpoint: Endpoint, error: Exception) -> EngineError:
    hint = "start docker, or name another engine with --host or --context"
    if isinstance(_cause(error), PermissionError):
        hint = "become root, or join the group docker"
    return EngineError(f"cannot reach an engine at {endpoint.shown}: {_reason(error)}; {hint}")


def _reason(error: BaseException) -> str:
    cause = _cause(error)
    if isinstance(cause, OSError) and cause.strerror:
        return printable(cause.strerror)
    return printable(str(cause)) or type(cause).__name__


def _cause(error: BaseException) -> BaseException:
    """Return the innermost exception that has something to say: the system's, if there is one."""
    seen: set[int] = set()
    while id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno is not None:
            break
        inner = [arg for arg in (*error.args, getattr(error, "reason", None)) if isinstance(arg, BaseException)]
        deeper = inner[-1] if inner else error.__cause__ or error.__context__
        if deeper is None:
            break
        error = deeper
    return error
