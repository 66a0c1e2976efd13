"""Whether the Redis at hand keeps the promises that dispatch makes for it."""

from collections.abc import Mapping
from typing import Final

from dispatch import keys
from dispatch.scripts import Command

OLDEST: Final = (7, 0)

WRITES_NOTHING: Final[Command] = ("SREM", keys.MODELS, "")
"""Refused by a server that takes no writes, such as a replica or one that loads its file.

It is allowed when memory is full. No model has an empty name.
"""


def parsed_info(text: str) -> dict[str, str]:
    """Return the fields of an INFO reply."""
    lines = (line.partition(":") for line in text.splitlines() if not line.startswith("#"))
    return {name: value for name, colon, value in lines if colon}


def complaints(info: Mapping[str, str]) -> list[str]:
    """Return what is wrong with a server, for its operator.

    Read from INFO, since managed servers forbid CONFIG.

    Args:
        info: fields of `INFO server`, `INFO memory` and `INFO persistence`.
    """
    found = []
    version = info.get("redis_version", "")
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers and numbers < OLDEST:
        found.append(f"Redis {version} is too old: 7.0 or newer, or Valkey, is needed")
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        found.append(
            f"maxmemory-policy is {policy}: Redis may throw accepted jobs away; set noeviction"
        )
    if info.get("maxmemory") == "0":
        found.append("maxmemory is not set: the system may end Redis when memory runs out")
    if info.get("aof_enabled") == "0":
        found.append("there is no append-only file: a restart of Redis loses accepted jobs")
    return found
