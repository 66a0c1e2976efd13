"""Which method needs which scope."""

from typing import Final, Literal, get_args

Scope = Literal["predict", "operations", "admin"]
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)

Need = Scope | Literal["nothing", "any"]
"""What a caller needs: nothing, any key, or a key with a scope."""

# Probes have no key, and learn no more than who is alive.
# What is served may be known to whoever may use some of it.
_METHODS: Final[dict[str, Need]] = {
    "/prediction.v1.PredictionService/ListModels": "any",
    "/prediction.v1.PredictionService/GetModel": "any",
    "/prediction.v1.PredictionService/SubmitPrediction": "operations",
    "/inference.GRPCInferenceService/ServerLive": "nothing",
    "/inference.GRPCInferenceService/ServerReady": "nothing",
    "/inference.GRPCInferenceService/ModelReady": "nothing",
    "/inference.GRPCInferenceService/ServerMetadata": "any",
    "/inference.GRPCInferenceService/ModelMetadata": "any",
    "/inference.GRPCInferenceService/ModelConfig": "any",
    "/inference.GRPCInferenceService/ModelStatistics": "any",
    "/inference.GRPCInferenceService/RepositoryIndex": "any",
}

_SERVICES: Final[dict[str, Need]] = {
    "grpc.health.v1.Health": "nothing",
    "grpc.reflection.v1alpha.ServerReflection": "any",
    "grpc.channelz.v1.Channelz": "admin",
    "prediction.v1.PredictionService": "predict",
    "google.longrunning.Operations": "operations",
    "prediction.v1.AdminService": "admin",
    "inference.GRPCInferenceService": "predict",
}

MESSAGES_ARE_REQUESTS: Final = frozenset(
    {
        "/prediction.v1.PredictionService/PredictStream",
        "/inference.GRPCInferenceService/ModelStreamInfer",
    }
)
"""Methods whose caller sends one request after the other."""


def need_of(method: str) -> Need:
    """Return what a caller of `method` needs.

    A service that is not listed is for those who may do everything, until somebody
    decides.
    """
    service = method.strip("/").rpartition("/")[0]
    return _METHODS.get(method) or _SERVICES.get(service, "admin")
