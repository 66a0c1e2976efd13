"""Pages of docs with parts that are made from the code.

A part stands between `<!-- NAME -->` and `<!-- end -->`.
"""

import re
from collections.abc import Iterable, Mapping, Sequence


def filled(page: str, parts: Mapping[str, str]) -> str:
    """Return a page with each part as it is now.

    Raises:
        ValueError: the page has no place for a part.
    """
    for name, text in parts.items():
        place = re.search(rf"<!-- {name} -->\n(.*?)<!-- end -->", page, re.DOTALL)
        if place is None:
            raise ValueError(f"the page has no place for {name!r}")
        page = page[: place.start(1)] + text + page[place.end(1) :]
    return page


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [" | ".join(header), "|".join("---" for _ in header)]
    text = f"| {lines[0]} |\n|{lines[1]}|\n"
    for cells in rows:
        text += "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"
    return text


def in_one_line(text: str) -> str:
    """Return a docstring as it stands in a cell."""
    return " ".join(text.split())
