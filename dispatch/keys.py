"""Names of every Redis key, and what lives there.

"Permanent" is what lives until its model is forgotten.

    despacho:models                     SET     models ever announced; permanent
    despacho:front-ends                 SET     names of front-end processes; permanent, the dead
                                                are pruned by whoever looks
    despacho:front-end:<server>         STRING  FrontEndCard of a live front-end process;
                                                PX FRONT_END_TTL_MS
    despacho:synced                     STRING  written so that there is something to wait for;
                                                PX SYNC_MARK_TTL_MS
    despacho:{model}:card               STRING  ModelCard of the worker that became ready last,
                                                or of another ready one after its end; permanent
    despacho:{model}:card-of            STRING  name of that worker; PX WORKER_TTL_MS
    despacho:{model}:workers            SET     names of workers; permanent, the dead are pruned
    despacho:{model}:worker:<name>      STRING  WorkerCard of a live worker; PEXPIRE WORKER_TTL_MS
    despacho:{model}:jobs:<priority>    STREAM  one entry per waiting or claimed job; permanent,
                                                empty when there is no work
    despacho:{model}:job:<id>           STRING  "<stream index> <entry id>" or "void"; lives until
                                                JOB_GRACE_MS after the deadline, so that a resent
                                                enqueue is recognised and a cancel finds its entry
    despacho:{model}:replies:<server>   STREAM  replies to one front-end process;
                                                PEXPIRE REPLIES_TTL_MS
    despacho:{model}:operation:<id>     HASH    an operation: what was submitted (caller,
                                                fingerprint, job, entry, number, created,
                                                deadline, ttl) and, once it has ended, outcome,
                                                ended, reply; lives until ttl after its end, or
                                                after its deadline as long as it has not ended
    despacho:{model}:operations:<caller>
                                        ZSET    ids of a caller's operations by time; members
                                                whose operation is gone are pruned now and
                                                then; lives at least as long as the last one
    despacho:{model}:done               STREAM  ids of operations that ended, the last DONE_MAX
                                                of them; PEXPIRE DONE_TTL_MS
    despacho:{model}:load               HASH    bytes: of calls, admitted and not yet retired;
                                                operation_bytes: the same of operations;
                                                operation_number: of the one admitted last;
                                                dead_bytes: in the dead-letter stream; permanent
    despacho:{model}:totals             HASH    outcomes counted for ever; permanent
    despacho:{model}:dead               STREAM  jobs set aside; permanent, bounded in bytes

The braces make one Cluster slot of a model, so that a script may touch all of
its keys. An entry of a job stream has the fields `job` (a Job message), `image`,
`deadline` (milliseconds of Redis time) and `size` (bytes counted in `load`).

Conservation, at any instant: totals.accepted = completed + failed + cancelled +
expired + poisoned + orphaned + the entries of the four job streams.
"""

from typing import Final

from dispatch.jobs import CALL_PRIORITIES, Priority

GROUP: Final = "workers"
"""The one consumer group of each job stream."""

RELEASED: Final = "released"
"""Consumer that holds entries given back: anybody may take them, at once."""

WORKER_TTL_MS: Final = 3000
"""A worker that is silent for this long is dead to the front-ends."""

REPLIES_TTL_MS: Final = 60_000
"""A front-end that is silent for this long is dead to the workers."""

JOB_GRACE_MS: Final = 5000
"""How long after its deadline a job can still be cancelled, which is when most expire."""

DONE_MAX: Final = 4096
"""About how many ended operations are remembered to wake those who wait for them."""

DONE_TTL_MS: Final = 60_000

MODELS: Final = "despacho:models"

FRONT_ENDS: Final = "despacho:front-ends"

FRONT_END_TTL_MS: Final = 5000
"""What a front-end has done is not shown any more when it is silent for this long."""

SYNC_MARK: Final = "despacho:synced"
SYNC_MARK_TTL_MS: Final = 1000

ENTRY_OVERHEAD_BYTES: Final = 256
"""Counted for each entry beside the image, so that many tiny ones are bounded too."""


def front_end(server_id: str) -> str:
    """What one front-end process has done."""
    return f"despacho:front-end:{server_id}"


def card(model: str) -> str:
    """What the model is."""
    return f"despacho:{{{model}}}:card"


def card_of(model: str) -> str:
    """Whose card that is."""
    return f"despacho:{{{model}}}:card-of"


def workers(model: str) -> str:
    """Names of the model's workers, some of which may be dead."""
    return f"despacho:{{{model}}}:workers"


def worker(model: str, name: str) -> str:
    """One live worker."""
    return f"despacho:{{{model}}}:worker:{name}"


def jobs(model: str, priority: Priority) -> str:
    """Waiting and claimed jobs of one priority."""
    return f"despacho:{{{model}}}:jobs:{priority.value}"


def call_streams(model: str) -> list[str]:
    """The job streams of calls, highest priority first: scripts refer to them by index."""
    return [jobs(model, priority) for priority in CALL_PRIORITIES]


def job_streams(model: str) -> list[str]:
    """All job streams, highest priority first: scripts refer to them by index."""
    return [jobs(model, priority) for priority in Priority]


def operation(model: str, operation_id: str) -> str:
    """What is known of an operation."""
    return f"despacho:{{{model}}}:operation:{operation_id}"


def operations(model: str, caller: str) -> str:
    """Operations of one caller."""
    return f"despacho:{{{model}}}:operations:{caller}"


def done(model: str) -> str:
    """Operations that have just ended."""
    return f"despacho:{{{model}}}:done"


def job(model: str, job_id: str) -> str:
    """Where the entry of a job is."""
    return f"despacho:{{{model}}}:job:{job_id}"


def replies(model: str, server_id: str) -> str:
    """Stream that one front-end process reads."""
    return f"despacho:{{{model}}}:replies:{server_id}"


def load(model: str) -> str:
    """Bytes admitted and not yet retired."""
    return f"despacho:{{{model}}}:load"


def totals(model: str) -> str:
    """Outcomes counted for ever."""
    return f"despacho:{{{model}}}:totals"


def dead(model: str) -> str:
    """Jobs set aside because workers died on them."""
    return f"despacho:{{{model}}}:dead"
