"""Environment variables of settings: their names, and those that nobody reads."""

import difflib
import os
import re
from collections.abc import Mapping
from typing import Final

import structlog
from pydantic import AliasChoices
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

_OF_KUBERNETES: Final = re.compile(
    r".*_SERVICE_(HOST|PORT(_\w+)?)=.*|.*_PORT_\d+_\w+=.*|.*_PORT=\w+://.*"
)
"""What it sets in each container for a Service whose name is `server`: `SERVER_PORT=tcp://...` and
more. `SERVER_PORT=50051` is somebody's guess at a setting."""


def variable(settings: type[BaseSettings], name: str, field: FieldInfo) -> str:
    """Name the environment variable of a field."""
    if isinstance(field.validation_alias, AliasChoices):
        # The other choices are for code, which uses the name of the field.
        return str(field.validation_alias.choices[-1])
    return f"{settings.model_config['env_prefix']}{name}".upper()


def warn_of_unread(
    settings: type[BaseSettings], environment: Mapping[str, str] = os.environ
) -> None:
    """Log each variable that begins as those of these settings, and is none of them.

    A misspelt one would otherwise be noticed by nobody: it changes nothing. Its value is not
    logged, as it may be a secret.
    """
    prefix = settings.model_config["env_prefix"]
    read = [variable(settings, *item) for item in settings.model_fields.items()]
    for name in sorted(environment):
        # Settings are read in any case of letters.
        upper = name.upper()
        if not upper.startswith(prefix) or upper in read:
            continue
        if not _OF_KUBERNETES.fullmatch(f"{upper}={environment[name]}"):
            alike = difflib.get_close_matches(upper, read, n=3)
            structlog.get_logger().warning("unknown setting", variable=name, alike=alike)
