"""Strategies: images as somebody sends them who means no good, or whose disk is broken."""

import struct
from dataclasses import dataclass
from typing import Final

from hypothesis import strategies as st

from tests.fuzz.bombs import BOMBS, bomb
from tests.fuzz.images import samples, strangers

EXTREMES: Final = (0, 1, 2, 7, 8, 127, 128, 255, 256, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1)
"""Numbers that lengths and sizes are set to."""

TAILS: Final = (b"\x00", b"\xff\xd9", b"IEND", b"GIF89a;", b"\xff" * 2000, b"PK\x03\x04" * 40)


@dataclass(frozen=True, slots=True)
class Picture:
    """What somebody calls an image, and what was done to it."""

    data: bytes
    story: str

    def __repr__(self) -> str:
        """Return something that can be read: what is small in full."""
        shown = self.data if len(self.data) <= 200 else self.data[:60] + b"..." + self.data[-20:]
        return f"Picture({self.story}; {len(self.data)} bytes: {shown!r})"


@st.composite
def damaged(draw: st.DrawFn) -> Picture:
    """Return a good image with some damage; half of it where the structure is."""
    name = draw(st.sampled_from(sorted(samples())))
    data = bytearray(samples()[name])
    story = [name]
    for _ in range(draw(st.integers(1, 6))):
        reach = min(len(data), draw(st.sampled_from([64, 64, 1 << 20]))) or 1
        at = draw(st.integers(0, reach - 1))
        how = draw(st.sampled_from(("flip", "set", "number", "cut", "drop", "repeat", "splice")))
        story.append(f"{how} at {at}")
        match how:
            case "flip":
                data[at : at + 1] = bytes(
                    byte ^ 1 << draw(st.integers(0, 7)) for byte in data[at : at + 1]
                )
            case "set":
                data[at : at + 1] = draw(st.binary(min_size=1, max_size=4))
            case "number":
                size, order = (
                    draw(st.sampled_from([(2, "H"), (4, "I")])),
                    draw(st.sampled_from("<>")),
                )
                value = draw(st.sampled_from(EXTREMES)) & (1 << 8 * size[0]) - 1
                data[at : at + size[0]] = struct.pack(order + size[1], value)
            case "cut":
                del data[at:]
            case "drop":
                del data[at : at + draw(st.integers(1, 64))]
            case "repeat":
                data[at:at] = data[at : at + draw(st.integers(1, 64))] * draw(st.integers(1, 50))
            case _:
                other = samples()[draw(st.sampled_from(sorted(samples())))]
                start = draw(st.integers(0, len(other)))
                data[at:] = other[start:]
    if draw(st.booleans()):
        data += draw(st.sampled_from(TAILS))
        story.append("with a tail")
    return Picture(bytes(data), ", ".join(story))


def whole() -> st.SearchStrategy[Picture]:
    """Return good images, and what is none."""
    known = {**samples(), **strangers()}
    return st.sampled_from(sorted(known)).map(lambda name: Picture(known[name], name))


def noise() -> st.SearchStrategy[Picture]:
    """Return bytes, some of which begin like an image."""
    heads = (
        b"",
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a",
        b"BM",
        b"RIFF\x99\0\0\0WEBPVP8X",
    )
    return st.builds(
        lambda head, rest: Picture(head + rest, "noise"),
        st.sampled_from(heads),
        st.binary(max_size=300),
    )


def pictures() -> st.SearchStrategy[Picture]:
    """Return images, most of them damaged; none that takes more than a moment."""
    return st.one_of(damaged(), damaged(), damaged(), whole(), noise())


def bombs() -> st.SearchStrategy[Picture]:
    """Return images that ask for more than they should."""
    return st.sampled_from(sorted(BOMBS)).map(lambda name: Picture(bomb(name), f"bomb {name}"))
