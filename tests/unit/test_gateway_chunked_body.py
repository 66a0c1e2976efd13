"""Bodies of unknown size."""

import io

import pytest

from gateway.chunked_body import BrokenBody, ChunkedBody


def read_all(text: bytes, *, size: int = 5) -> tuple[bytes, bytes]:
    """Return the body, and what is left behind it."""
    source = io.BytesIO(text)
    body = ChunkedBody(source)
    pieces = list(iter(lambda: body.read(size), b""))
    assert all(len(piece) <= size for piece in pieces)
    return b"".join(pieces), source.read()


@pytest.mark.parametrize("size", [1, 3, 100])
def test_chunks_of_any_size_are_put_together(size: int) -> None:
    text = b"3\r\nabc\r\nA;name=value\r\n0123456789\r\n0\r\n\r\nGET / HTTP/1.1"
    assert read_all(text, size=size) == (b"abc0123456789", b"GET / HTTP/1.1")


def test_trailers_are_skipped() -> None:
    assert read_all(b"1\r\na\r\n0\r\nDigest: x\r\n\r\nrest") == (b"a", b"rest")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"3\r\nab",
        b"3\r\nabcd\r\n0\r\n\r\n",
        b"-1\r\n\r\n",
        b"0x3\r\nabc\r\n0\r\n\r\n",
        b"ffffffffffffffffffff\r\n",
        b"three\r\nabc\r\n",
        b"3\r\nabc\r\n0\r\n",
        b"1" * 2000,
        b"0\r\n" + b"a: b\r\n" * 100,
        # Line ends that others may read otherwise.
        b"3\ncat\r\n0\r\n\r\n",
        b"3;\ncat\r\n0\r\n\r\n",
        b"3;a\rb\r\ncat\r\n0\r\n\r\n",
        b"3\r\ncat\n0\r\n\r\n",
        b"3\r\ncat \r\n0\r\n\r\n",
        b"3\r\ncat\r\n0\n\r\n",
        b"3\r\ncat\r\n0\r\n\n",
        b"3\r\ncat\r\n0\r\n \r\n",
        b"3\r\ncat\r\n0\r\nDigest: x\n\r\n",
        b"3\r\ncat\r\n0\r\nDigest : x\r\n\r\n",
        b"3\r\ncat\r\n0\r\nGET / HTTP/1.1\r\n\r\n",
    ],
)
def test_what_is_not_in_chunks_is_broken(text: bytes) -> None:
    with pytest.raises(BrokenBody):
        read_all(text)


def test_a_chunk_that_claims_to_be_huge_takes_no_memory() -> None:
    class Source(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            assert size is not None
            assert size <= 64 * 1024
            return super().read(size)

    body = ChunkedBody(Source(b"fffffffff\r\n" + bytes(100_000)))
    assert len(body.read()) == 64 * 1024
