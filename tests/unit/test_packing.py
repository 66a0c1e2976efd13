"""Commands on the wire: what hiredis makes of them, in pieces."""

import hiredis
import pytest

from dispatch.packing import LARGE_BYTES, packed
from dispatch.scripts import Command

IMAGE = bytes(range(256)) * (LARGE_BYTES // 256)


@pytest.mark.parametrize(
    "commands",
    [
        [],
        [("PING",)],
        [("SET", "clé", -5), ("GET", b"")],
        [("XADD", "s", "*", "image", IMAGE)],
        [("XADD", IMAGE[:-1], IMAGE, "x", IMAGE + b"\r\n", IMAGE), ("PING",)],
    ],
)
def test_the_pieces_are_together_what_hiredis_packs(commands: list[Command]) -> None:
    pack = hiredis.pack_command
    assert b"".join(packed(commands)) == b"".join(pack(each) for each in commands)  # type: ignore[arg-type] # stub: a tuple of one


def test_what_is_large_is_not_copied() -> None:
    assert any(piece is IMAGE for piece in packed([("XADD", "s", "*", "image", IMAGE)]))
