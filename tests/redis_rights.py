"""What the code asks of Redis, found by reading it, and what docs/operations.md allows."""

import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
PAGE: Final = ROOT / "docs" / "operations.md"

OF_WORKERS: Final = {"work_queue", "claiming", "retiring"}
"""The modules of `dispatch` that talk to Redis for workers; the others do for front-ends."""

WITH_SUBCOMMANDS: Final = {"XINFO", "XGROUP"}

NO_RIGHTS: Final = {"BLOCK", "LIMIT", "STREAMS", "AUTH", "SELECT", "CLIENT", "WRONGTYPE"}
"""Words that look like commands, and what a connection begins with (SELECT: only if need be)."""

DONE_WITHOUT: Final = {"CONFIG"}
"""Commands that may be refused, and are not worth what they would show (passwords)."""


def asked_for(who: str) -> set[str]:
    """Return the commands that the code of a service sends, scripts included."""
    found = {"eval", "evalsha"}
    for path in (ROOT / "dispatch").glob("*.py"):
        if (path.stem in OF_WORKERS) != (who == "worker"):
            continue
        text = path.read_text()
        found |= _commands(re.findall(r'\("([A-Z]{3,})"(?:, "([A-Z]+)")?', text))
        for script in re.findall(r"scripts\.([A-Z_]+)\.call", text):
            source = (ROOT / "dispatch" / "lua" / f"{script.lower()}.lua").read_text()
            found |= _commands(re.findall(r"call\('([A-Z]+)'(?:, '([A-Z]+)')?", source))
    return found


def _commands(found: list[tuple[str, str]]) -> set[str]:
    return {
        f"{command}|{second}".lower() if command in WITH_SUBCOMMANDS else command.lower()
        for command, second in found
        if command not in NO_RIGHTS | DONE_WITHOUT
    }


def told_to_operators() -> list[str]:
    """Return the commands that the page has people send to Redis."""
    # `CONFIG GET` is what services ask for.
    sent = r"`(BGREWRITEAOF|INFO [a-z]+|(?:ACL|CLIENT|CONFIG) (?!GET)[A-Z]+[^`]*)`"
    return re.findall(sent, PAGE.read_text())


def right_to(command: str) -> str:
    """Return the rule that allows to send this, and no other command."""
    name, *words = command.lower().split()
    return f"+{name}|{words[0]}" if name in {"acl", "client", "config"} else f"+{name}"


def documented(who: str) -> list[str]:
    """Return the rules of the user that the page shows, without name, `on` and password."""
    match = re.search(rf"^user {who} on >\S+ (.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert match is not None, who
    # Up to the next user of the same block.
    return match[1].split("\nuser ")[0].replace("\\\n", " ").split()
