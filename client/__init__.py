"""The client library: label images through a Despacho server.

    from pathlib import Path
    from client import Client

    with Client("127.0.0.1:50051") as despacho:
        print(despacho.predict(Path("cat.jpg")).labels[0].label)

`AsyncClient` is the same for asyncio. Everything either raises is below
`DespachoError`; see `errors.py`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .async_client import AsyncClient
    from .errors import (
        AccessDenied,
        Cancelled,
        DeadlineExceeded,
        DespachoError,
        InternalError,
        InvalidImage,
        InvalidInput,
        NotFound,
        Overloaded,
        Retryable,
        Unavailable,
        Unreachable,
        Unsupported,
    )
    from .images import Image
    from .results import (
        DeadLetter,
        Health,
        Label,
        Model,
        ModelState,
        Operation,
        OperationState,
        PredictionResult,
        Priority,
        StreamOutcome,
        Timing,
    )
    from .stats import ModelStats, Stats
    from .sync_client import Client

__version__ = "0.1.0"

__all__ = [
    "AccessDenied",
    "AsyncClient",
    "Cancelled",
    "Client",
    "DeadLetter",
    "DeadlineExceeded",
    "DespachoError",
    "Health",
    "Image",
    "InternalError",
    "InvalidImage",
    "InvalidInput",
    "Label",
    "Model",
    "ModelState",
    "ModelStats",
    "NotFound",
    "Operation",
    "OperationState",
    "Overloaded",
    "PredictionResult",
    "Priority",
    "Retryable",
    "Stats",
    "StreamOutcome",
    "Timing",
    "Unavailable",
    "Unreachable",
    "Unsupported",
]

_HOMES: Final = {
    "AsyncClient": "async_client",
    "Client": "sync_client",
    "Image": "images",
    "ModelStats": "stats",
    "Stats": "stats",
    **dict.fromkeys(
        [
            "DeadLetter",
            "Health",
            "Label",
            "Model",
            "ModelState",
            "Operation",
            "OperationState",
            "PredictionResult",
            "Priority",
            "StreamOutcome",
            "Timing",
        ],
        "results",
    ),
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used.

    The command line lives in this package, and `despacho --help` should not
    pay for loading gRPC.
    """
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES.get(name, 'errors')}", __name__), name)
    globals()[name] = value
    return value
