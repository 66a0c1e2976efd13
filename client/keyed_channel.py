"""What goes along with each call, of whichever kind: the key, the caller's trace, an end."""

from typing import Any, Final

from . import trace_context
from .api_key import Metadata

LONGEST_S: Final = 365.0 * 24 * 3600
"""Counts as for ever: gRPC takes the end of a call that lies behind the year 2262 for one that is
over."""


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
