"""What a process says to the person who starts it with wrong settings."""

from pydantic import ValidationError


def explained(error: ValidationError) -> str:
    """Return one line that names each wrong setting, without its value: it may be a secret."""
    # What is wrong with several together has no place of its own.
    return "; ".join(": ".join((*map(str, e["loc"][:1]), e["msg"])) for e in error.errors())
