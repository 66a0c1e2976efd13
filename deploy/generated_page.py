"""Pages of docs with parts that a script writes from the code, and checks.

A part stands between `<!-- NAME -->` and `<!-- end -->`.
"""

import argparse
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent


def run(about: str, page: Path, parts: Mapping[str, str]) -> int:
    """Run the command line of a script; return the exit code.

    Args:
        about: what the script does, one line.
        page: the file.
        parts: what stands in it, by name.
    """
    parser = argparse.ArgumentParser(description=about)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--write", action="store_true", help="write the page")
    action.add_argument("--check", action="store_true", help="only compare")
    arguments = parser.parse_args()

    before = page.read_text(encoding="utf-8")
    after = filled(before, parts)
    if arguments.write:
        page.write_text(after, encoding="utf-8")
    elif after != before:
        print(f"stale: {page.relative_to(ROOT)} (run `make docs`)", file=sys.stderr)
        return 1
    return 0


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
