"""What Redis did, read from its append-only file: a witness that asks nobody.

Each write command is in the file once, in order, with all that scripts did. So it
tells how often a reply was published to a job, whatever the parts say, and also
across a SIGKILL of Redis.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from google.protobuf.message import DecodeError

from despacho.job.v1.job_pb2 import Job, Reply

JOBS = re.compile(rb"despacho:\{[^}]*\}:jobs:")
OPERATION = re.compile(rb"despacho:\{[^}]*\}:operation:")
REPLIES = re.compile(rb"despacho:\{[^}]*\}:replies:")


@dataclass(slots=True)
class Journal:
    """How often each job, by its id, was enqueued and answered."""

    enqueued: Counter[str] = field(default_factory=Counter)
    published: Counter[str] = field(default_factory=Counter)

    def repeated(self) -> int:
        """Return how many replies were published besides the first of each job."""
        return sum(count - 1 for count in self.published.values())


def read_journal(folder: Path) -> Journal:
    """Read what a server with its files in `folder` has written so far."""
    journal = Journal()
    for path in sorted((folder / "appendonlydir").glob("*.incr.aof")):
        with path.open("rb") as file:
            for command in _commands(file):
                _note(journal, command)
    return journal


def _note(journal: Journal, command: list[bytes]) -> None:
    if command[0].upper() == b"HSET" and OPERATION.match(command[1]) and b"reply" in command:
        reply = Reply.FromString(command[command.index(b"reply") + 1])
        journal.published[reply.job_id] += 1
    if len(command) < 5 or command[0].upper() != b"XADD":
        return
    if JOBS.match(command[1]):
        journal.enqueued[Job.FromString(command[command.index(b"job") + 1]).id] += 1
    elif REPLIES.match(command[1]) and command[-2] == b"reply":
        try:
            journal.published[Reply.FromString(command[-1]).job_id] += 1
        except DecodeError:
            journal.published["unreadable"] += 1


def _commands(file: BinaryIO) -> Iterator[list[bytes]]:
    """Yield the complete commands; a last one that is cut off is left out."""
    while line := file.readline():
        if not line.startswith(b"*"):
            continue  # a time stamp
        command = []
        for _ in range(int(line[1:])):
            size = int(file.readline()[1:] or 0)
            command.append(file.read(size))
            file.readline()
        yield command
