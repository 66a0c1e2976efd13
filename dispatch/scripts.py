"""The Lua scripts of `lua/`, one atomic operation each."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

Argument = str | bytes | int
Command = tuple[Argument, ...]
"""A Redis command as it goes over the wire: its name, then its arguments."""


@dataclass(frozen=True, slots=True)
class Script:
    """One script, sent by its digest."""

    source: str
    sha: str

    @classmethod
    def load(cls, name: str) -> "Script":
        """Read `lua/<name>.lua`."""
        source = (files("dispatch") / "lua" / f"{name}.lua").read_text()
        return cls(source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())

    def call(self, keys: Sequence[str], arguments: Sequence[Argument] = ()) -> Command:
        """Return the command that runs it."""
        return ("EVALSHA", self.sha, len(keys), *keys, *arguments)


ENQUEUE: Final = Script.load("enqueue")
CANCEL: Final = Script.load("cancel")
MISSING: Final = Script.load("missing")
LOOK_AT_QUEUES: Final = Script.load("look_at_queues")
LISTEN: Final = Script.load("listen")
ANNOUNCE_FRONT_END: Final = Script.load("announce_front_end")
COUNT_WAITING: Final = Script.load("count_waiting")
COMPLETE: Final = Script.load("complete")
QUARANTINE: Final = Script.load("quarantine")
RENEW: Final = Script.load("renew")
RECLAIM: Final = Script.load("reclaim")
GIVE_BACK: Final = Script.load("give_back")
OPEN: Final = Script.load("open")
REGISTER: Final = Script.load("register")
ANNOUNCE: Final = Script.load("announce")
LEAVE: Final = Script.load("leave")
SUBMIT: Final = Script.load("submit")
LOOK_AT_OPERATION: Final = Script.load("look_at_operation")
END_OPERATION: Final = Script.load("end_operation")
DELETE_OPERATION: Final = Script.load("delete_operation")
LIST_OVERDUE: Final = Script.load("list_overdue")
END_CALL: Final = Script.load("end_call")
LIST_DEAD_LETTERS: Final = Script.load("list_dead_letters")
PURGE_DEAD_LETTERS: Final = Script.load("purge_dead_letters")
CLEAR_DEAD_LETTERS: Final = Script.load("clear_dead_letters")
FORGET_MODEL: Final = Script.load("forget_model")

_SOURCES: Final = {
    script.sha: script.source
    for script in (
        *(ENQUEUE, CANCEL, MISSING, LOOK_AT_QUEUES, LISTEN, ANNOUNCE_FRONT_END),
        *(OPEN, REGISTER, ANNOUNCE, LEAVE),
        *(COUNT_WAITING, COMPLETE, QUARANTINE, RENEW, RECLAIM, GIVE_BACK),
        *(SUBMIT, LOOK_AT_OPERATION, END_OPERATION, DELETE_OPERATION),
        *(LIST_OVERDUE, END_CALL),
        *(LIST_DEAD_LETTERS, PURGE_DEAD_LETTERS, CLEAR_DEAD_LETTERS, FORGET_MODEL),
    )
}


def in_full(command: Command) -> Command:
    """Return `command` with the source of its script instead of the digest.

    Redis forgets scripts when it restarts or is told to; running one in full
    makes it known again.
    """
    name, sha, *rest = command
    if name != "EVALSHA":
        raise ValueError(f"not a script call: {name!r}")
    return ("EVAL", _SOURCES[str(sha)], *rest)
