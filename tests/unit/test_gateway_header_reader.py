"""Headers that a proxy before the gateway may read in another way are not read at all."""

from io import BytesIO

import pytest

from gateway.header_reader import HeaderReader


def read(*lines: bytes) -> dict[bytes, bytes]:
    headers: dict[bytes, bytes] = {}
    HeaderReader()(BytesIO(b"".join(lines) + b"\r\n"), headers)
    return headers


def test_names_are_of_one_case_and_values_without_blanks() -> None:
    assert read(b"hOST: \t a b \t\r\n", b"x-Request-ID:1\r\n") == {
        b"Host": b"a b",
        b"X-Request-Id": b"1",
    }


@pytest.mark.parametrize("name", [b"Host", b"content-length"])
def test_what_there_is_one_of_is_not_there_twice(name: bytes) -> None:
    with pytest.raises(ValueError, match="twice"):
        read(name + b": 1\r\n", name + b": 1\r\n")


def test_lists_are_put_together_and_else_the_last_one_counts() -> None:
    twice = (b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip\r\n")
    assert read(*twice) == {b"Transfer-Encoding": b"chunked, gzip"}
    assert read(b"Origin: a\r\n", b"Origin: b\r\n") == {b"Origin": b"b"}


def test_an_underscore_stands_for_no_hyphen() -> None:
    assert read(b"Content_Length: 5\r\n", b"Content-Length: 7\r\n") == {b"Content-Length": b"7"}


@pytest.mark.parametrize(
    "line",
    [
        *(b"Host : a\r\n", b" Host: a\r\n", b"Host: a\n", b"Host: a\rX: b\r\n", b"Host: \x00\r\n"),
        *(b"Host\r\n", b": a\r\n", b"H(st: a\r\n"),
    ],
)
def test_a_malformed_line_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match="Malformed"):
        read(line)


def test_headers_that_do_not_end_are_refused() -> None:
    with pytest.raises(ValueError, match="Malformed"):
        HeaderReader()(BytesIO(b"Host: a\r\n"), {})
