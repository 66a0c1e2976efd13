"""The headers of one request, read as narrowly as HTTP defines them.

cheroot's own reader drops blanks before a colon, and takes a line that begins with one for more of
the line before. A proxy may have read either as something else, and where it takes this request to
end we might see another one.
"""

import re
from typing import Any, Final

from cheroot.server import comma_separated_headers  # type: ignore[attr-defined] # not in its stubs

LINE: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([^\x00\r\n]*)\r\n")
"""A header, or a trailer: name and value."""

_END: Final = b"\r\n"

_ONCE: Final = (b"Host", b"Content-Length")
"""What there is one of: of two, a proxy may have gone by the other one."""


class HeaderReader:
    """Takes the place of cheroot's."""

    def __call__(self, lines: Any, headers: dict[bytes, bytes]) -> None:
        """Read all there are.

        Args:
            lines: the buffered bytes of the connection, behind the first line.
            headers: where to put them.

        Raises:
            ValueError: one is malformed, or contradicts another one.
        """
        while (line := lines.readline()) != _END:
            match = LINE.fullmatch(line)
            if match is None:
                raise ValueError("Malformed header line.")
            _add(headers, match[1].title(), match[2].strip(b" \t"))


def _add(headers: dict[bytes, bytes], name: bytes, value: bytes) -> None:
    before = headers.get(name)
    if before is not None and name in _ONCE:
        raise ValueError(f"{name.decode()} is there twice.")
    if before and name in comma_separated_headers:
        value = b", ".join((before, value))
    # An application would take `Content_Length` for `Content-Length`.
    if b"_" not in name:
        headers[name] = value
