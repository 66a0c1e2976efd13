"""Make an API key: `python -m server.keys new NAME --scopes predict,operations`.

Prints the key, once, and what to add to the file that SERVER_API_KEYS_FILE names.
"""

import argparse
import sys
from typing import cast

from pydantic import ValidationError

from server.api_keys import ApiKey, digest, new_key
from server.scopes import SCOPES, Scope
from telemetry.refusal import explained


def main() -> int:
    """Run the command line; return the exit code."""
    options = _parser().parse_args()
    key = new_key()
    try:
        entry = ApiKey(
            name=options.name,
            sha256=digest(key),
            scopes=options.scopes,
            requests_per_s=options.requests_per_s,
            max_in_flight=options.max_in_flight,
        )
    except ValidationError as error:
        sys.stderr.write(f"server.keys: {explained(error)}\n")
        return 2
    # Apart, so that `>> keys.toml` takes what belongs there and the key is seen only once.
    sys.stderr.write(f"The key of {entry.name}, which is shown only now:\n\n{key}\n\n")
    sys.stderr.write("For the file of SERVER_API_KEYS_FILE:\n\n")
    sys.stderr.flush()
    sys.stdout.write(as_toml(entry))
    return 0


def as_toml(entry: ApiKey) -> str:
    """Return the entry as the file has it."""
    scopes = ", ".join(f'"{scope}"' for scope in SCOPES if scope in entry.scopes)
    lines = [
        "",
        "[[key]]",
        f'name = "{entry.name}"',
        f'sha256 = "{entry.sha256}"',
        f"scopes = [{scopes}]",
    ]
    if entry.requests_per_s:
        lines.append(f"requests_per_s = {entry.requests_per_s!r}")
    if entry.max_in_flight:
        lines.append(f"max_in_flight = {entry.max_in_flight}")
    return "\n".join(lines) + "\n"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m server.keys", description="Make an API key.")
    commands = parser.add_subparsers(dest="command", required=True)
    new = commands.add_parser("new", help="make a key; prints it once")
    new.add_argument("name", help="who will use it")
    new.add_argument(
        "--scopes",
        type=_scopes,
        default=frozenset({"predict", "operations"}),
        help=f"of {','.join(SCOPES)}; default: predict,operations",
    )
    new.add_argument("--requests-per-s", type=float, default=0.0, help="default: no limit")
    new.add_argument("--max-in-flight", type=int, default=0, help="calls; default: no limit")
    return parser


def _scopes(text: str) -> frozenset[Scope]:
    names = {name.strip() for name in text.split(",")}
    if not names <= set(SCOPES):
        raise argparse.ArgumentTypeError(f"scopes are {', '.join(SCOPES)}")
    return frozenset(cast("set[Scope]", names))


if __name__ == "__main__":
    sys.exit(main())
