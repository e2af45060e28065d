"""Digests."""

import hashlib

import pytest

from fusefs.oci.digest import Digest

SHA256 = "a1" * 32
SHA512 = "a1" * 64


@pytest.mark.parametrize(
    ("text", "digest"),
    [(f"sha256:{SHA256}", Digest("sha256", SHA256)), (f"sha512:{SHA512}", Digest("sha512", SHA512))],
)
def test_a_digest_is_read_and_written_alike(text: str, digest: Digest) -> None:
    assert Digest.parse(text) == digest
    assert str(digest) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "malformed digest ''"),
        ("sha256", "malformed digest 'sha256'"),
        ("sha256:", "malformed digest 'sha256:'"),
        (f":{SHA256}", f"malformed digest ':{SHA256}'"),
        (f"SHA256:{SHA256}", f"malformed digest 'SHA256:{SHA256}'"),
        (f" sha256:{SHA256}", f"malformed digest ' sha256:{SHA256}'"),
        (f"sha256:{SHA256}\n", f"malformed digest 'sha256:{SHA256}\\n'"),
        ("sha256:../../etc/passwd", "malformed digest 'sha256:../../etc/passwd'"),
        ("sha256:\ud800", "malformed digest 'sha256:\\ud800'"),
        (f"sha256:{SHA256[1:]}", f"malformed sha256 digest 'sha256:{SHA256[1:]}'"),
        (f"sha256:{SHA256}0", f"malformed sha256 digest 'sha256:{SHA256}0'"),
        (f"sha256:{SHA256.upper()}", f"malformed sha256 digest 'sha256:{SHA256.upper()}'"),
        (f"sha256:{'g' * 64}", f"malformed sha256 digest 'sha256:{'g' * 64}'"),
        (f"sha512:{SHA256}", f"malformed sha512 digest 'sha512:{SHA256}'"),
        (f"md5:{SHA256}", "unsupported digest algorithm 'md5'"),
        ("sha256:" + "x" * 100000, "malformed sha256 digest 'sha256:" + "x" * 143 + "'"),
    ],
)
def test_what_is_no_digest_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match="digest") as caught:
        Digest.parse(text)
    assert str(caught.value) == message


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_digest_is_of_all_chunks_together(algorithm: str) -> None:
    chunks: list[bytes | bytearray | memoryview] = [b"hello ", bytearray(b"wor"), memoryview(b"ld")]
    assert Digest.of(chunks, algorithm) == Digest(algorithm, hashlib.new(algorithm, b"hello world").hexdigest())


def test_the_digest_of_nothing_is_that_of_no_bytes() -> None:
    assert Digest.of([]) == Digest("sha256", hashlib.sha256().hexdigest())
