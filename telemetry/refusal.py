"""What a process says to the person who starts it with wrong settings."""

from pydantic import ValidationError


def explained(error: ValidationError) -> str:
    """Return one line that names each wrong setting, without its value: it may be a secret."""
    return "; ".join(f"{each['loc'][0]}: {each['msg']}" for each in error.errors())
