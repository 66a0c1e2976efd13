"""The address of Redis as a setting: checked when it is read, not when it is used."""

from typing import Annotated

from pydantic import AfterValidator
from redis.asyncio.connection import parse_url


def _checked(url: str) -> str:
    try:
        parse_url(url)
    except ValueError:
        # Without the text of the error, which may show a password.
        raise ValueError("must begin with redis://, rediss:// or unix://") from None
    return url


RedisUrl = Annotated[str, AfterValidator(_checked)]
"""`redis://`, `rediss://` or `unix://`, with password and database if there are any."""
