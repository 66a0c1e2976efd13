"""Who may call: the file of API keys.

    [[key]]
    name = "camera-1"               who it is: owns operations, and is in the log
    sha256 = "9f86d081884c7d65…"    of the key
    scopes = ["predict"]            predict, operations, admin
    requests_per_s = 50             0 or missing: no limit
    max_in_flight = 16              calls at a time; 0 or missing: no limit

The file does not have the keys, so that whoever reads it (a backup, a repository)
cannot call. A plain SHA-256 does for that: keys are 256 random bits, which nobody
finds by trying, however fast the hash. Slow hashes are for passwords that people
think of, and would make every call slow.
"""

import asyncio
import hashlib
import re
import secrets
import tomllib
from pathlib import Path
from types import TracebackType
from typing import Annotated, Final, Self

import structlog
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from server.call_record import ANONYMOUS
from server.quota import Limits, Quota
from server.scopes import Scope
from server.watched_files import WatchedFiles

log = structlog.get_logger(__name__)

PREFIX: Final = "despacho_"
"""Begins each key, so that scanners for secrets can find one where it should not be."""

LOOK_S: Final = 1.0
"""How often the file is looked at; a key that was taken out works for this long, seconds."""

# Part of a Redis key. Has no `=`, which each subject of a certificate has, so that
# the two never name the same caller.
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class BadKeysFile(Exception):
    """The file cannot be used; says where it is wrong, and quotes none of it."""


def checked_name(name: str) -> str:
    """Return the name of a key.

    Raises:
        ValueError: it cannot be one.
    """
    if not _NAME.fullmatch(name):
        raise ValueError("a name has 1 to 64 letters, digits, dots, dashes and underscores")
    if name == ANONYMOUS:
        raise ValueError(f"{ANONYMOUS} is the name of those who have no key")
    return name


class ApiKey(BaseModel):
    """One key, as the file has it."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: Annotated[str, AfterValidator(checked_name)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    scopes: frozenset[Scope]
    requests_per_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0
    max_in_flight: Annotated[int, Field(ge=0)] = 0

    @property
    def limits(self) -> Limits:
        """How much it may be used."""
        return Limits(self.requests_per_s, self.max_in_flight)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    key: Annotated[list[ApiKey], Field(min_length=1)]


def new_key() -> str:
    """Return a key that nobody can guess."""
    return PREFIX + secrets.token_urlsafe(32)


def digest(key: str) -> str:
    """Return what the file has of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def parsed(text: str) -> list[ApiKey]:
    """Return the keys of a file.

    Raises:
        BadKeysFile: it is not such a file.
    """
    try:
        keys = _File.model_validate(tomllib.loads(text)).key
    except tomllib.TOMLDecodeError as error:
        raise BadKeysFile(str(error)) from None
    except ValidationError as error:
        wrong = (f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise BadKeysFile("; ".join(wrong)) from None
    for what in ("name", "sha256"):
        values = [getattr(key, what) for key in keys]
        if len(set(values)) < len(values):
            raise BadKeysFile(f"two keys have the same {what}")
    return keys


class ApiKeys:
    """The keys of a file, with what each has used; follows the file from `async with` on.

    Args:
        path: the file.

    Raises:
        BadKeysFile: the file cannot be used. Later, a bad file changes nothing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files = WatchedFiles([path])
        self._quotas: dict[str, Quota] = {}
        self._files.have_changed()
        self._keys = self._read()
        self._follower: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._follower = asyncio.create_task(self._follow())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._follower is not None:
            self._follower.cancel()
            await asyncio.gather(self._follower, return_exceptions=True)

    def find(self, key: str) -> ApiKey | None:
        """Return whose key this is; None: nobody's."""
        # How long a look into a dictionary takes may say something of the hash that it was
        # asked for. Whoever calls knows that one, and learns nothing of a hash in the file,
        # let alone of its key: no SHA-256 can be aimed at one that nobody knows.
        return self._keys.get(digest(key))

    def quota(self, key: ApiKey) -> Quota:
        """Return what the owner of a key has used."""
        quota = self._quotas.get(key.name)
        if quota is None:
            quota = self._quotas[key.name] = Quota(key.name, key.limits)
        quota.limits = key.limits
        return quota

    async def look(self) -> None:
        """Use the keys of the file as it is now."""
        try:
            # In a thread: to read thousands takes long, and calls would wait for it.
            keys = await asyncio.to_thread(self._read_if_changed)
        except BadKeysFile as error:
            log.error("new API keys not used, the old ones stay", reason=str(error))  # noqa: TRY400 - the reason says it all
            return
        if keys is not None:
            self._keys = keys
            log.info("new API keys in use", count=len(keys))

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self.look()
            except Exception:
                log.exception("the file of API keys could not be looked at")

    def _read_if_changed(self) -> dict[str, ApiKey] | None:
        return self._read() if self._files.have_changed() else None

    def _read(self) -> dict[str, ApiKey]:
        try:
            text = self._path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadKeysFile(f"{self._path} cannot be read: {type(error).__name__}") from error
        try:
            return {key.sha256: key for key in parsed(text)}
        except BadKeysFile as error:
            raise BadKeysFile(f"{self._path}: {error}") from None
