"""What a request may say: one function per rule.

What needs decoding (format, pixels) is checked by the worker.
"""

import re
from typing import Final

from dispatch import errors
from dispatch.jobs import Priority
from prediction.v1 import prediction_pb2 as pb

MAX_TOP_K: Final = 1000
"""Most labels that can be asked for."""

DEFAULT_TOP_K: Final = 5
"""Labels returned when the request does not say."""

MAX_REQUEST_ID_CHARS: Final = 128
"""Longest request id, characters."""

MAX_BATCH_IMAGES: Final = 256
"""Most images in one message; the size of the message bounds them, too."""

PRIORITIES: Final = {
    pb.PRIORITY_UNSPECIFIED: Priority.NORMAL,
    pb.PRIORITY_HIGH: Priority.HIGH,
    pb.PRIORITY_NORMAL: Priority.NORMAL,
    pb.PRIORITY_LOW: Priority.LOW,
}
"""The wire's priorities, and ours."""

DURABILITIES: Final = {
    pb.DURABILITY_UNSPECIFIED: False,
    pb.DURABILITY_WRITTEN: False,
    pb.DURABILITY_SYNCED: True,
}
"""The wire's durabilities, and whether the disk is waited for."""

_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def check_image(image: bytes, *, max_bytes: int) -> None:
    """Accept 1 to `max_bytes` bytes.

    Raises:
        ImageEmpty: there are none.
        ImageTooLarge: there are more.
    """
    if not image:
        raise errors.ImageEmpty("the request has no image")
    if len(image) > max_bytes:
        raise errors.ImageTooLarge(
            f"the image has {len(image)} bytes; the limit is {max_bytes} bytes"
        )


def check_batch_count(count: int) -> None:
    """Accept 1 to `MAX_BATCH_IMAGES` images in one message.

    Raises:
        InvalidArgument: there are fewer or more.
    """
    if not 1 <= count <= MAX_BATCH_IMAGES:
        raise errors.InvalidArgument(
            "images", f"the batch has {count} images; it must have 1 to {MAX_BATCH_IMAGES}"
        )


def to_total_bytes(total_bytes: int, *, max_bytes: int) -> int:
    """Return the size that an upload announces; 0: it does not.

    Raises:
        InvalidArgument: it is negative.
        ImageTooLarge: it is above `max_bytes`.
    """
    if total_bytes < 0:
        raise errors.InvalidArgument(
            "total_bytes", f"total_bytes is {total_bytes}; it must not be negative"
        )
    if total_bytes > max_bytes:
        raise errors.ImageTooLarge(
            f"the image has {total_bytes} bytes; the limit is {max_bytes} bytes"
        )
    return total_bytes


def to_top_k(top_k: int) -> int:
    """Return how many labels to return; 0 means the default.

    Raises:
        InvalidArgument: it is out of range.
    """
    if not 0 <= top_k <= MAX_TOP_K:
        raise errors.InvalidArgument(
            "top_k", f"top_k is {top_k}; it must be from 1 to {MAX_TOP_K}, or 0 for {DEFAULT_TOP_K}"
        )
    return top_k or DEFAULT_TOP_K


def is_request_id(text: str) -> bool:
    """Say whether `text` may be used as a request id; the empty one may not."""
    return 0 < len(text) <= MAX_REQUEST_ID_CHARS and text.isascii() and text.isprintable()


def to_submission_id(request_id: str) -> str:
    """Return the id of a submission in one spelling; an empty one is accepted.

    Raises:
        InvalidArgument: it is not a UUID.
    """
    if request_id and not _UUID.fullmatch(request_id):
        raise errors.InvalidArgument("request_id", "request_id must be a UUID, or empty")
    return request_id.lower()


def to_is_synced(value: pb.Durability.ValueType) -> bool:
    """Return whether an operation must be on the disk before it counts as accepted.

    Raises:
        InvalidArgument: this server does not know the value.
    """
    if value not in DURABILITIES:
        raise errors.InvalidArgument("durability", f"durability {value} is not known here")
    return DURABILITIES[value]


def check_request_id(request_id: str, *, field: str = "request_id") -> None:
    """Accept short printable ASCII, because it is echoed in metadata and in logs.

    Args:
        request_id: as the caller wrote it.
        field: what the caller calls it.

    Raises:
        InvalidArgument: it is something else. An empty one is accepted.
    """
    if request_id and not is_request_id(request_id):
        raise errors.InvalidArgument(
            field, f"{field} must be at most {MAX_REQUEST_ID_CHARS} printable ASCII characters"
        )


def to_priority(value: pb.Priority.ValueType) -> Priority:
    """Return our name for the wire's priority.

    Raises:
        InvalidArgument: this server does not know the value. Guessing one would
            silently put a newer client's work into the wrong queue.
    """
    priority = PRIORITIES.get(value)
    if priority is None:
        raise errors.InvalidArgument("priority", f"priority {value} is not known to this server")
    return priority
