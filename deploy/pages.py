"""Write, or check, the parts of docs/ that are made from the code.

    python -m deploy.pages --write
    python -m deploy.pages --check    exit 1 if a page is stale

Which parts there are is said by the modules for the pages.
"""

import argparse
import sys

from deploy import error_page, metrics_page, settings_table
from deploy.generated_page import filled
from deploy.state import ROOT


def main() -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser("python -m deploy.pages", description=__doc__)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--write", action="store_true", help="write the pages")
    action.add_argument("--check", action="store_true", help="only compare")
    arguments = parser.parse_args()

    code = 0
    for made in (settings_table, error_page, metrics_page):
        before = made.PAGE.read_text(encoding="utf-8")
        after = filled(before, made.parts())
        if arguments.write:
            made.PAGE.write_text(after, encoding="utf-8")
        elif after != before:
            print(f"stale: {made.PAGE.relative_to(ROOT)} (run `make docs`)", file=sys.stderr)
            code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
