"""The referrers API of the OCI distribution specification 1.1, which Debian's docker-registry lacks, for the proxy."""

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.support.fault_proxy import Asked, Fault, Reply

OCI_INDEX = "application/vnd.oci.image.index.v1+json"


def referrers(lists: Mapping[str, Sequence[Mapping[str, Any]]], page: int = 100) -> Fault:
    """Answer with *lists*, descriptors by the digest of their subject, *page* of them at a time."""

    def fault(asked: Asked, _: Reply) -> Reply:
        parts = urlsplit(asked.path)
        listed = lists.get(parts.path.rpartition("/")[2], ())
        first = int(parse_qs(parts.query).get("last", ["0"])[0])
        shown, left = listed[first : first + page], listed[first + page :]
        body = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": shown}).encode()
        headers = {"Content-Type": OCI_INDEX, "Content-Length": str(len(body))}
        if left:
            headers["Link"] = f'<{parts.path}?n={page}&last={first + page}>; rel="next"'
        return Reply(200, headers, body)

    return fault
