"""An image in an engine: Docker's or Podman's, through the Docker Engine API.

The engine is asked once what the image is (inspect) and then for exactly that (save, by image ID).
What it sends is spooled, and indexed and hashed as it passes.  The only importer of the SDK.
"""

import json
import logging
import re
import warnings
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from typing import Any

import docker
import docker.constants
import docker.tls
import docker.transport
import requests
import requests.utils
import urllib3.exceptions
from docker import errors as sdk

from fusefs.content import Content, Extent, chunks
from fusefs.digest import DiffID, Digest
from fusefs.errors import DigestMismatch, EngineError, ImgfsError, Unavailable, Unsupported, printable
from fusefs.image import Image
from fusefs.progress import Progress
from fusefs.sources.docker_archive import DockerArchive
from fusefs.sources.endpoint import Endpoint
from fusefs.spool import Spool, free_space, no_space
from fusefs.tarheader import Kind
from fusefs.tarindex import Member, TarIndex, scan

log = logging.getLogger(__name__)

_ANSWER_TIMEOUT = 60
"""Seconds for a connection, and for the answer to everything but a save."""
_CHUNK = 1 << 20
_AFTER_THE_END = 1 << 20
"""Bytes that are still taken after what can be understood: an error message may be among them."""
_ERROR_TAIL = 1 << 14
"""Bytes at the end of a stream that may hold the engine's error."""
_JSON_ERROR = re.compile(rb'\{\s*"(?:errorDetail|error|message|cause)"')


@dataclass(frozen=True, slots=True)
class Inspected:
    """What an engine says of an image before it is saved."""

    image_id: Digest
    size: int
    """Bytes, an estimate: it can be far too small."""
    diff_ids: tuple[DiffID, ...]


def engine_image(endpoint: Endpoint, name: str, tmpdir: str, progress: Progress) -> Image:
    """Save the image *name* into a spool file in *tmpdir* and return it, every digest checked.

    Raises EngineError, Unavailable, NoSpace, DigestMismatch, InvalidImage or Unsupported.
    """
    with _client(endpoint) as client:
        inspected = _inspect(client, endpoint, name)
        free = free_space(tmpdir)
        if inspected.size > free:
            raise no_space(printable(name), tmpdir, inspected.size, free)
        with Spool(tmpdir, printable(name)) as spool:
            index, digests = _save(client, endpoint, inspected, spool, progress)
            image = DockerArchive(spool.file, index).image(None, name)
            _check(image, inspected, digests)
            return image


def _client(endpoint: Endpoint) -> AbstractContextManager[docker.APIClient]:
    """Return a client that speaks the engine's version of the API."""
    try:
        # The version is asked for without one: engines refuse both too old and too new a client.
        with closing(_unversioned(endpoint, docker.constants.MINIMUM_DOCKER_API_VERSION)) as client:
            version = client.version(api_version=False)
        if not isinstance(version, dict) or not isinstance(version.get("ApiVersion"), str):
            msg = f"no Docker API at {endpoint.shown}: it states no API version"
            raise EngineError(msg)
        return closing(_unversioned(endpoint, version["ApiVersion"]))
    except (sdk.DockerException, requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        raise _unreachable(endpoint, error) from None


def _unversioned(endpoint: Endpoint, version: str) -> docker.APIClient:
    tls: bool | docker.tls.TLSConfig = False
    if endpoint.tls is not None:
        files = endpoint.tls
        client = (str(files.client[0]), str(files.client[1])) if files.client else None
        ca = str(files.ca) if files.ca and files.verify else None
        tls = docker.tls.TLSConfig(client_cert=client, ca_cert=ca, verify=files.verify)
        if not files.verify:
            warnings.simplefilter("ignore", urllib3.exceptions.InsecureRequestWarning)
    if endpoint.host.startswith("ssh://") and not hasattr(docker.transport, "SSHHTTPAdapter"):
        msg = f"{endpoint.shown}: ssh needs an extra; pip install 'imgfs[ssh]'"
        raise EngineError(msg)
    api = docker.APIClient(base_url=endpoint.host, version=version, tls=tls, timeout=_ANSWER_TIMEOUT)
    # With trust_env a REQUESTS_CA_BUNDLE in the environment overrides the endpoint's own CA.
    api.trust_env = False
    if api.base_url.startswith(("http://", "https://")):
        api.proxies.update(requests.utils.get_environ_proxies(api.base_url))
    return api


def _inspect(client: docker.APIClient, endpoint: Endpoint, name: str) -> Inspected:
    try:
        answer: Any = client.inspect_image(name)  # type: ignore[no-untyped-call]
    except sdk.ImageNotFound:
        msg = f"no image {printable(name)} in the engine at {endpoint.shown}; docker pull {printable(name)} fetches it"
        raise Unavailable(msg) from None
    except sdk.APIError as error:
        raise _refused(endpoint, name, error) from None
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        raise _unreachable(endpoint, error) from None
    try:
        image_id = Digest.parse(answer["Id"] if ":" in answer["Id"] else f"sha256:{answer['Id']}")
        diff_ids = tuple(DiffID(Digest.parse(text)) for text in answer["RootFS"].get("Layers") or ())
        size = int(answer["Size"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        msg = f"the engine at {endpoint.shown} describes {printable(name)} in no way that makes sense: {error!r}"
        raise EngineError(msg) from None
    if "Descriptor" in answer:
        msg = f"{printable(name)}: the containerd image store of the engine is not supported yet"
        raise Unsupported(msg)
    return Inspected(image_id, size, diff_ids)


def _save(
    client: docker.APIClient, endpoint: Endpoint, inspected: Inspected, spool: Spool, progress: Progress
) -> tuple[TarIndex, dict[int, Digest]]:
    """Receive the image; return its index, and the sha256 of each regular member by its offset."""
    with ThreadPoolExecutor(1, "follow") as pool:
        following = pool.submit(_follow, spool)
        try:
            with _saved(client, endpoint, inspected, spool.name, progress) as response:
                _receive(response, inspected, spool, following, progress)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            msg = (
                f"the engine at {endpoint.shown} stopped sending {spool.name} "
                f"after {spool.written} bytes: {_reason(error)}"
            )
            raise EngineError(msg) from None
        finally:
            spool.finish()
    reported = _error_in_stream(spool)
    if reported is not None:
        msg = f"the engine at {endpoint.shown} failed to save {spool.name}: {printable(reported)}"
        raise EngineError(msg)
    return following.result()


def _saved(
    client: docker.APIClient, endpoint: Endpoint, inspected: Inspected, name: str, progress: Progress
) -> requests.Response:
    """Return the answer to a save once it has begun; classic engines prepare the whole image before that.

    The SDK's own `get_image` hands on pieces of 32 KiB, which take twice as long to write.
    """
    url = f"{client.base_url}/v{client.api_version}/images/{inspected.image_id}/get"
    with progress.waiting(f"the engine prepares {name}"):
        response = client.get(url, stream=True, timeout=(_ANSWER_TIMEOUT, None))
        try:
            response.raise_for_status()
        except requests.HTTPError as error:
            try:
                sdk.create_api_error_from_http_exception(error)
            except sdk.APIError as refusal:
                raise _refused(endpoint, name, refusal) from None
        return response


def _receive(
    response: requests.Response,
    inspected: Inspected,
    spool: Spool,
    following: "Future[tuple[TarIndex, dict[int, Digest]]]",
    progress: Progress,
) -> None:
    spare = _AFTER_THE_END
    with progress.transfer(f"saving {spool.name}", inspected.size) as advance:
        while chunk := response.raw.read(_CHUNK, decode_content=False):
            spool.write(chunk, inspected.size)
            advance(len(chunk))
            if following.done():  # at an error, or well past the end of the archive
                spare -= len(chunk)
                if spare < 0:
                    return


def _follow(spool: Spool) -> tuple[TarIndex, dict[int, Digest]]:
    """Index and hash what the receiving thread writes; runs in a thread of its own."""
    digests: dict[int, Digest] = {}

    def hashed() -> Iterator[Member]:
        for member in scan(spool):
            if member.kind is Kind.REGULAR:
                digests[member.offset] = Digest.of(_data(spool, member))
            yield member

    return TarIndex.of(spool.name, hashed()), digests


def _data(spool: Spool, member: Member) -> Iterator[bytes | bytearray]:
    end = member.offset + member.size
    for offset in range(member.offset, end, _CHUNK):
        data = spool.read_at(offset, min(_CHUNK, end - offset))
        if not data:  # cut short, which the scan reports
            return
        yield data


def _check(image: Image, inspected: Inspected, digests: dict[int, Digest]) -> None:
    """Compare what was saved with what inspect said, and all content with its digests."""
    if image.config.descriptor.digest != inspected.image_id:
        msg = (
            f"{printable(image.name)}: the saved image config has the digest {image.config.descriptor.digest}, "
            f"the engine says {inspected.image_id}"
        )
        raise DigestMismatch(msg)
    diff_ids = tuple(layer.diff_id for layer in image.layers)
    if diff_ids != inspected.diff_ids:
        msg = (
            f"{printable(image.name)}: the saved image has other layers ({len(diff_ids)}) "
            f"than the engine says ({len(inspected.diff_ids)})"
        )
        raise DigestMismatch(msg)

    def digest_of(content: Content, algorithm: str) -> Digest:
        if algorithm == "sha256" and isinstance(content, Extent):
            return digests[content.offset]
        return Digest.of(chunks(content), algorithm)

    image.verify(digest_of)


def _error_in_stream(spool: Spool) -> str | None:
    """Return the error that an engine wrote as JSON at the end of its stream, under HTTP 200."""
    start = max(0, spool.written - _ERROR_TAIL)
    tail = bytes(spool.read_at(start, _ERROR_TAIL))
    for match in _JSON_ERROR.finditer(tail):
        try:
            document = json.loads(tail[match.start() :])
        except (ValueError, RecursionError):
            continue
        for key in ("error", "message", "cause"):
            if isinstance(document.get(key), str):
                return str(document[key])
    return None


def _refused(endpoint: Endpoint, name: str, error: sdk.APIError) -> ImgfsError:
    explanation = error.explanation or error.response.reason if error.response is not None else error.explanation
    return EngineError(f"the engine at {endpoint.shown} refuses {printable(name)}: {printable(str(explanation))}")


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
    found = error
    seen: set[int] = set()
    while id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno is not None:
            return error
        inner = [arg for arg in (*error.args, getattr(error, "reason", None)) if isinstance(arg, BaseException)]
        following = inner[-1] if inner else error.__cause__ or error.__context__
        if following is None:
            return error
        error = following
    return found
