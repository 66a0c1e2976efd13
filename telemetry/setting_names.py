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

_OF_KUBERNETES: Final = re.compile(r".*_SERVICE_(HOST|PORT(_\w+)?)|.*_PORT(_\d+_\w+)?")
"""What it sets in each container for a Service: `SERVER_PORT_50051_TCP`, if that is its name."""


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
    # Settings are read in any case of letters.
    unread = {name for name in environment if name.upper().startswith(prefix)}
    for name in sorted(unread):
        if name.upper() in read or _OF_KUBERNETES.fullmatch(name.upper()):
            continue
        alike = difflib.get_close_matches(name.upper(), read, n=3)
        structlog.get_logger().warning("unknown setting", variable=name, alike=alike)
