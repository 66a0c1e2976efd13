"""What `make` tells compose: the settings of the first `make up`, until `make down`.

Compose recreates each container whose settings differ from those of the one that runs. So
the environment of a later command must not decide: it could drop API keys, or the model.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from deploy.errors import StackError
from deploy.stack import SETTINGS, default_model
from deploy.state import write_private

LINE: Final = re.compile(
    r"""\s*(?:export\s+)?(?P<name>\w+)\s*=\s*"""
    r"""(?:"(?P<double>[^"]*)"|'(?P<single>[^']*)'|(?P<bare>.*?))(?:\s+#.*)?\s*"""
)
"""A line of a file `.env`."""

OTHERS: Final = frozenset({"REDIS_URL", "TRACING", "ENGINES"})
"""The last two say what the images are built with."""


def settings_in(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the settings of our services and of their images."""
    return {name: value for name, value in sorted(environment.items()) if is_setting(name)}


def is_setting(name: str) -> bool:
    """Say whether a variable is for our services or their images."""
    return name.startswith(SETTINGS) or name in OTHERS


def save(settings: Mapping[str, str], path: Path) -> None:
    """Remember them, readable for their owner only: there may be passwords."""
    write_private(path, json.dumps(settings, indent=2))


def load(path: Path) -> dict[str, str] | None:
    """Return what was saved; None: nothing.

    Raises:
        StackError: the file is damaged. To go on without it could drop API keys.
    """
    try:
        found: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise StackError(
            f"{path} is damaged, which has the settings of the containers:"
            "\n  remove it, and run this again with the settings that they were started with"
        ) from error
    return found


def for_compose(
    environment: Mapping[str, str], settings: Mapping[str, str], dot_env: Path
) -> dict[str, str]:
    """Return the environment of compose: that of the caller, but for the settings.

    Args:
        environment: of the caller.
        settings: of the services.
        dot_env: the file from which compose takes what the environment does not say.
    """
    others = {name: value for name, value in environment.items() if not is_setting(name)}
    default = default_model({**in_file(dot_env), **settings}, has_our_files=False)
    return {**others, **settings, **default}


def in_file(dot_env: Path) -> dict[str, str]:
    """Return what the file says from which compose takes what the environment does not say.

    As far as both versions of compose agree: quotes around a value are none of it, and in a value
    without them a comment may follow a blank.
    """
    try:
        lines = dot_env.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    found = (LINE.fullmatch(line) for line in lines)
    return {
        match["name"]: match["double"] or match["single"] or match["bare"] or ""
        for match in found
        if match
    }


def are_in_file(prefix: str, override: Path) -> bool:
    """Say whether an override of compose's own file may have settings that begin so."""
    return override.exists() and prefix in override.read_text(encoding="utf-8")
