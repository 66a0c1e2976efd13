"""What lies in Redis for one model, read all at once and independently of `dispatch/lua`."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import redis

from despacho.job.v1.job_pb2 import DeadLetter, Job, Reply
from dispatch import keys
from dispatch.jobs import Place, Priority


@dataclass(frozen=True, slots=True)
class DispatchState:
    """One moment."""

    entries: dict[Priority, list[str]]
    """Ids of the jobs in each stream, in order."""

    sizes: dict[Priority, list[int]]
    """The size field of each entry, in order."""

    pending: dict[Place, tuple[str, int]]
    """Of what is claimed: the worker that holds it and how often it was delivered."""

    load: dict[str, int]
    totals: dict[str, int]
    replies: dict[bytes, str]
    """Entry id to job id of each reply of one front-end."""

    dead: list[tuple[str, int, bytes]]
    """Job id, size and image of each dead letter."""

    done: list[str]
    """Ids of operations in the stream that says which have ended."""

    @classmethod
    def read(cls, client: "redis.Redis", model: str, server_id: str) -> "DispatchState":
        """Read it in one transaction."""
        pipe = client.pipeline()
        for stream in keys.job_streams(model):
            pipe.xrange(stream)
            pipe.xpending_range(stream, keys.GROUP, "-", "+", 1000)
        pipe.hgetall(keys.load(model))
        pipe.hgetall(keys.totals(model))
        pipe.xrange(keys.replies(model, server_id))
        pipe.xrange(keys.dead(model))
        pipe.xrange(keys.done(model))
        *streams, load, totals, replies, dead, done = pipe.execute()
        entries = {
            priority: [fields for _, fields in found]
            for priority, found in zip(Priority, streams[::2], strict=True)
        }
        return cls(
            entries={
                priority: [Job.FromString(fields[b"job"]).id for fields in found]
                for priority, found in entries.items()
            },
            sizes={
                priority: [int(fields[b"size"]) for fields in found]
                for priority, found in entries.items()
            },
            pending={
                (priority, each["message_id"].decode()): (
                    each["consumer"].decode(),
                    each["times_delivered"],
                )
                for priority, found in zip(Priority, streams[1::2], strict=True)
                for each in found
            },
            load={name.decode(): int(count) for name, count in load.items()},
            totals={name.decode(): int(count) for name, count in totals.items()},
            replies={
                entry_id: Reply.FromString(fields[b"reply"]).job_id for entry_id, fields in replies
            },
            dead=[
                (
                    DeadLetter.FromString(fields[b"letter"]).job.id,
                    int(fields[b"size"]),
                    fields[b"image"],
                )
                for _, fields in dead
            ],
            done=[fields[b"operation"].decode() for _, fields in done],
        )


def keys_against_their_page(client: "redis.Redis") -> Iterator[str]:
    """Yield each key that is not as `dispatch/keys.py` says: its name, its type or its life."""
    page = re.findall(
        r"^ {4}(despacho:\S+)\s+([A-Z]+) +(.*(?:\n {5,}.*)*)", keys.__doc__ or "", re.MULTILINE
    )
    for key in client.scan_iter():
        name, kind = key.decode(), client.type(key)
        assert isinstance(kind, bytes)
        if kind == b"none":
            continue  # its time was over just now
        texts = [
            text
            for shape, type_, text in page
            if _has_shape(name, shape) and type_ == kind.decode().upper()
        ]
        if not texts:
            yield f"{name} ({kind.decode()}) is on no line"
        elif client.ttl(key) == -1 and not any("permanent" in text for text in texts):
            yield f"{name} lives for ever"


def _has_shape(name: str, shape: str) -> bool:
    pattern = re.escape(shape).replace(r"\{model\}", r"\{[^}]+\}")
    return re.fullmatch(re.sub(r"<\w+>", "[^:]+", pattern), name) is not None
