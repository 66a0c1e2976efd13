"""Redis commands as they go over the wire, without copying what is large.

hiredis packs a command into one block. With the images of a whole batch that is a copy
of megabytes in memory that the system has to hand out, zeroed, and takes back each time.
"""

from collections.abc import Iterable
from typing import Final

from dispatch.scripts import Command

LARGE_BYTES: Final = 4096
"""From here on an argument is cheaper to send as it is than to copy."""


def packed(commands: Iterable[Command]) -> list[bytes]:
    """Return the pieces of commands, to be written one after the other."""
    pieces: list[bytes] = []
    small: list[bytes] = []
    for command in commands:
        small.append(b"*%d\r\n" % len(command))
        for argument in command:
            if isinstance(argument, bytes):
                data = argument
            elif isinstance(argument, str):
                data = argument.encode()
            else:
                data = b"%d" % argument
            if len(data) < LARGE_BYTES:
                small.append(b"$%d\r\n%b\r\n" % (len(data), data))
            else:
                small.append(b"$%d\r\n" % len(data))
                pieces += (b"".join(small), data)
                small = [b"\r\n"]
    pieces.append(b"".join(small))
    return pieces
