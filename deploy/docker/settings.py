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
from deploy.stack import default_model
from deploy.state import write_private

PREFIXES: Final = ("SERVER_", "WORKER_", "GATEWAY_", "OTEL_")

OTHERS: Final = frozenset({"REDIS_URL", "TRACING", "ENGINES"})
"""The last two say what the images are built with."""


def settings_in(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the settings of our services and of their images."""
    return {name: value for name, value in sorted(environment.items()) if is_setting(name)}


def is_setting(name: str) -> bool:
    """Say whether a variable is for our services or their images."""
    return name.startswith(PREFIXES) or name in OTHERS


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
    default = {} if _names_model(dot_env) else default_model(settings, has_our_files=False)
    return {**others, **settings, **default}


def are_in_files(prefix: str, folder: Path) -> bool:
    """Say whether what compose reads besides its own file may have settings that begin so."""
    files = (folder / name for name in (".env", "docker-compose.override.yml"))
    return any(prefix in file.read_text(encoding="utf-8") for file in files if file.exists())


def _names_model(dot_env: Path) -> bool:
    """Say whether a file decides which models there are."""
    try:
        text = dot_env.read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    return (
        re.search(r"^\s*(export\s+)?(SERVER_DEFAULT_MODEL|WORKER_MODEL)\s*=", text, re.MULTILINE)
        is not None
    )
