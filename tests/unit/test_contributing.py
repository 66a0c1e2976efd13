"""What CONTRIBUTING.md says of places in the code."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "CONTRIBUTING.md"


def test_a_constant_is_where_the_page_says() -> None:
    found = 0
    for row in re.findall(r"^\| .* \|$", PAGE.read_text(), re.MULTILINE):
        files = [ROOT / name for name in re.findall(r"`([\w/]+\.py)`", row)]
        text = "".join(path.read_text() for path in files if path.exists())
        for constant in re.findall(r"`(_?[A-Z][A-Z_]+)`", row) if files else ():
            found += 1
            assert re.search(rf"^{constant}\b", text, re.MULTILINE), row
    assert found
