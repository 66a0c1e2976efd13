"""Who may do what: looks at the credentials of a call before anything else of it is read.

A refused call gets a handler that never asks for its message, so gRPC does not
even receive it: whoever has no key cannot fill our memory with images. Of methods
that need no key, `strangers.py` receives the messages.
"""

import asyncio
import hashlib
import re
import ssl
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from typing import Any, Final

import grpc

from dispatch import errors
from server.api_keys import ApiKeys
from server.call_record import CURRENT, CallRecord
from server.gate import Gate
from server.interceptor import REFUSAL, Context, Handler, messages_of, refuse, wrapped
from server.quota import Quota, Visit
from server.scopes import MESSAGES_ARE_REQUESTS, Need, need_of

Metadata = Sequence[tuple[str, str | bytes]]

AUTHORIZATION_KEY: Final = "authorization"
"""Metadata: `Bearer` and the key."""

API_KEY_KEY: Final = "x-api-key"
"""Metadata: the key alone, for callers that cannot send the other one."""

_BEARER: Final = re.compile(r"bearer +(\S+)", re.IGNORECASE)

MAKE_HANDLER: Final[dict[tuple[bool, bool], Callable[..., "Handler"]]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}
"""By whether requests and responses are streams."""


class Guard(grpc.aio.ServerInterceptor):
    """Stands outside of `CallInterceptor`, which knows nothing of who calls.

    Args:
        keys: who may call; None: every caller that got a connection, by its certificate.
        gate: that of the `CallInterceptor`.
    """

    def __init__(self, keys: ApiKeys | None, gate: Gate) -> None:
        self._keys = keys
        self._refuse = wrapped(grpc.stream_unary_rpc_method_handler(refuse), gate)
        self._refuse_stream = wrapped(grpc.stream_stream_rpc_method_handler(refuse), gate)
        self._changed: dict[Handler, Handler] = {}
        """Handlers that know more of a caller than theirs; made once for each, as
        a method has another one in a flood."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["Handler | None"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "Handler | None":
        """Return the handler for a caller that may call it, else one that refuses."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        need = need_of(method)
        if handler is None or need == "nothing":
            return handler
        if self._keys is None:
            return self._changed_once(handler, _named)
        try:
            quota = self._admit(self._keys, handler_call_details.invocation_metadata, need)
        except errors.DespachoError as refusal:
            REFUSAL.set(refusal)
            return self._refuse_stream if handler.response_streaming else self._refuse
        visit = _begin(quota, CURRENT.get())
        if method not in MESSAGES_ARE_REQUESTS:
            return handler
        _VISIT.set(visit)
        return self._changed_once(handler, _paced)

    def _changed_once(
        self, handler: "Handler", change: Callable[["Handler"], "Handler"]
    ) -> "Handler":
        if handler not in self._changed:
            self._changed[handler] = change(handler)
        return self._changed[handler]

    def _admit(self, keys: ApiKeys, metadata: Any, need: Need) -> Quota:
        """Return the quota of a caller, which has paid for the call.

        Raises:
            CredentialsMissing, CredentialsInvalid, ScopeMissing, RateLimited: refused.
        """
        key = keys.find(sent_key(metadata))
        if key is None:
            raise errors.CredentialsInvalid("the API key is not one of this server")
        CURRENT.get().caller = key.name
        if need not in {"any", *key.scopes}:
            raise errors.ScopeMissing(f"the API key {key.name!r} lacks the scope {need!r}")
        quota = keys.quota(key)
        quota.check_room()
        quota.take()
        return quota


_VISIT: Final[ContextVar[Visit]] = ContextVar("despacho_visit")


def sent_key(metadata: Metadata) -> str:
    """Return the one key in the metadata of a call.

    Raises:
        CredentialsMissing: there is none.
        CredentialsInvalid: there are several, or something else.
    """
    found = []
    for name, value in metadata:
        # Blanks around a value are none of it in HTTP; some clients send them along.
        if name == AUTHORIZATION_KEY:
            match = _BEARER.fullmatch(str(value).strip())
            if match is None:
                raise errors.CredentialsInvalid("the metadata `authorization` is not `Bearer KEY`")
            found.append(match[1])
        elif name == API_KEY_KEY:
            found.append(str(value).strip())
    if not found:
        raise errors.CredentialsMissing(
            "this server needs an API key, in the metadata `authorization: Bearer KEY`"
        )
    if len(set(found)) > 1:
        raise errors.CredentialsInvalid("the call has several API keys")
    return found[0]


def _begin(quota: Quota, call: CallRecord) -> Visit:
    """Return the visit that lasts as long as the call, however it ends."""
    visit = Visit(quota, lambda: call.images + call.failed_images)

    def end(task: "asyncio.Task[Any]") -> None:
        del task
        visit.end()

    # gRPC has one task for each call, and this is it. Nothing shorter will do: a call
    # whose message is still on its way has no handler yet, and may never get one.
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - interceptors run in a task
    task.add_done_callback(end)
    return visit


def _paced(handler: "Handler") -> "Handler":
    """Return the handler of a stream, with messages no faster than the caller may send them."""
    behaviour: Any = handler.stream_stream

    async def respond(requests: Any, context: Context) -> None:
        # The handler inside closes what it gets, which is not the generator of gRPC.
        async with messages_of(requests) as messages:
            await behaviour(_VISIT.get().paced(messages), context)

    return grpc.stream_stream_rpc_method_handler(
        respond, handler.request_deserializer, handler.response_serializer
    )


def _named(handler: "Handler") -> "Handler":
    """Return `handler`, called in the name of the certificate of its caller."""
    behaviour: Any = (
        handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    )

    async def respond(request: Any, context: Context) -> Any:
        CURRENT.get().caller = certificate_owner(context.auth_context())
        return await behaviour(request, context)

    return MAKE_HANDLER[handler.request_streaming, handler.response_streaming](
        respond, handler.request_deserializer, handler.response_serializer
    )


def certificate_owner(auth_context: Any) -> str:
    """Return who a certificate belongs to: its subject, or its fingerprint if it has none."""
    subject = next(iter(auth_context.get("x509_subject", ())), b"")
    if subject:
        return str(subject.decode(errors="backslashreplace"))
    pem = next(iter(auth_context["x509_pem_cert"])).decode()
    return f"sha256={hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()}"
