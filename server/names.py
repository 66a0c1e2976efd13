"""Resource names: what is called `models/{model}/operations/{id}` and the like."""

import re
from typing import Final

from dispatch.errors import InvalidArgument

# A model is named as `worker/model_spec.py` allows it.
_MODEL_ID: Final = r"[a-z0-9][a-z0-9._-]{0,62}"
_ID: Final = r"[a-z0-9-]{1,64}"
_MODEL: Final = re.compile(rf"models/(?P<model>{_MODEL_ID})")
_OPERATION: Final = re.compile(rf"models/(?P<model>{_MODEL_ID}|-)/operations/(?P<id>{_ID})")
_DEAD_LETTER: Final = re.compile(rf"models/(?P<model>{_MODEL_ID})/deadLetters/(?P<id>{_ID})")

ANY: Final = "-"
"""Stands for the model that a caller does not name, as in AIP-159."""

ANY_MODEL: Final = f"models/{ANY}"
"""The parent of what belongs to any model."""


def is_model_name(name: str) -> bool:
    """Say whether a worker may serve a model of that name."""
    return _MODEL.fullmatch(f"models/{name}") is not None


def operation_name(model: str, operation_id: str) -> str:
    """Return the name of an operation."""
    return f"models/{model}/operations/{operation_id}"


def dead_letter_name(model: str, letter_id: str) -> str:
    """Return the name of a dead letter."""
    return f"models/{model}/deadLetters/{letter_id}"


def parse_operation(name: str) -> tuple[str, str]:
    """Return model, which may be `ANY`, and id.

    Raises:
        InvalidArgument: it is not the name of an operation.
    """
    return _parse_child(_OPERATION, name, "operations", "name")


def parse_dead_letter(name: str, *, field: str = "name") -> tuple[str, str]:
    """Return model and id.

    Raises:
        InvalidArgument: it is not the name of a dead letter.
    """
    return _parse_child(_DEAD_LETTER, name, "deadLetters", field)


def parse_model(name: str) -> str:
    """Return the model of `models/{model}`.

    Raises:
        InvalidArgument: it is not the name of a model.
    """
    match = _MODEL.fullmatch(name)
    if match is None:
        raise InvalidArgument("name", "name must be models/{model}")
    return match["model"]


def _parse_child(
    pattern: re.Pattern[str], name: str, collection: str, field: str
) -> tuple[str, str]:
    match = pattern.fullmatch(name)
    if match is None:
        raise InvalidArgument(field, f"{field} must be models/{{model}}/{collection}/{{id}}")
    return match["model"], match["id"]
