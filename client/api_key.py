"""Sending an API key with each call, to nobody who should not see it; and the caller's trace."""

import ipaddress
import re
from collections.abc import Sequence
from typing import Any, Final

from . import trace_context

Metadata = Sequence[tuple[str, str | bytes]]

LONGEST_S: Final = 365.0 * 24 * 3600
"""Counts as for ever: gRPC takes the end of a call that lies behind the year 2262 for one that is
over."""

_KEY: Final = re.compile(r"[\x21-\x7e]+")


class InsecureKey(ValueError):
    """Others could read the key on its way."""


def metadata_of(api_key: str) -> Metadata:
    """Return what goes with each call.

    Raises:
        ValueError: it cannot be a key. gRPC would say so, too, and quote it.
    """
    if not _KEY.fullmatch(api_key):
        raise ValueError("an API key has no spaces, line ends or letters outside of ASCII")
    return (("authorization", f"Bearer {api_key}"),)


def check_confidential(target: str) -> None:
    """Check that what is sent unencrypted to `target` stays on this machine.

    Raises:
        InsecureKey: it may not.
    """
    if not stays_here(target):
        raise InsecureKey(
            f"an API key would go to {target} unencrypted: give `credentials`, or"
            " `allow_insecure_key=True` if the network is safe"
        )


def stays_here(target: str) -> bool:
    """Say whether all addresses of a gRPC target are of this machine."""
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    for scheme in ("ipv4:", "ipv6:"):
        if target.startswith(scheme):
            return all(map(_is_loopback, target.removeprefix(scheme).split(",")))
    if target.startswith("dns:"):
        # With or without the name server to ask: `dns:name`, `dns://server/name`.
        target = target.removeprefix("dns:").rpartition("/")[2]
    return _is_loopback(target)


def _is_loopback(address: str) -> bool:
    if address.startswith("["):
        host = address[1:].partition("]")[0]
    elif address.count(":") == 1:
        host = address.partition(":")[0]
    else:
        host = address
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class KeyedChannel:
    """A channel, blocking or not, each call of which has some metadata more.

    They are those that are given, and the trace that the caller's code is in. And each
    call ends some day.

    Not an interceptor: those of `grpc.aio` replace the objects of calls by others,
    which are cancelled and iterated over in ways of their own. Not call credentials:
    gRPC sends those over encrypted connections only, and a server of this machine
    needs none.
    """

    def __init__(self, channel: Any, metadata: Metadata) -> None:
        self._channel = channel
        self._metadata = metadata

    def unary_unary(self, *args: Any, **kwargs: Any) -> "KeyedMethod":
        """Return a method."""
        return KeyedMethod(self._channel.unary_unary(*args, **kwargs), self._metadata)

    def unary_stream(self, *args: Any, **kwargs: Any) -> "KeyedMethod":
        """Return a method."""
        return KeyedMethod(self._channel.unary_stream(*args, **kwargs), self._metadata)

    def stream_unary(self, *args: Any, **kwargs: Any) -> "KeyedMethod":
        """Return a method."""
        return KeyedMethod(self._channel.stream_unary(*args, **kwargs), self._metadata)

    def stream_stream(self, *args: Any, **kwargs: Any) -> "KeyedMethod":
        """Return a method."""
        return KeyedMethod(self._channel.stream_stream(*args, **kwargs), self._metadata)

    def close(self) -> Any:
        """Close the channel; to be awaited if that of the channel is."""
        return self._channel.close()


class KeyedMethod:
    """A method of a channel, ready to be called in any of its ways."""

    def __init__(self, method: Any, metadata: Metadata) -> None:
        self._method = method
        self._metadata = metadata

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Call it."""
        return self._method(*args, **self._with_ours(**options))

    def future(self, *args: Any, **options: Any) -> Any:
        """Call it, and do not wait."""
        return self._method.future(*args, **self._with_ours(**options))

    def _with_ours(
        self, *, timeout: float | None = None, metadata: Metadata = (), **others: Any
    ) -> dict[str, Any]:
        trace = trace_context.current()
        ours = (*self._metadata, (trace_context.KEY, trace)) if trace else self._metadata
        limit_s = None if timeout is None else min(timeout, LONGEST_S)
        return {"timeout": limit_s, "metadata": (*metadata, *ours), **others}
