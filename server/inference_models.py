"""What the Open Inference Protocol says of models; no I/O."""

from collections.abc import Sequence

from dispatch.errors import ModelNotFound, quoted
from inference import grpc_predict_v2_pb2 as pb
from server.inference_request import (
    DEFAULT_PRIORITY,
    IMAGE,
    LABELS,
    MAX_IMAGES,
    PRIORITY_LEVELS,
    SCORES,
)
from server.ports import ModelView
from server.tensors import BYTES, FP32

ANY: int = -1
"""Length of a dimension that requests decide."""

READY = "READY"
LOADING = "LOADING"
UNAVAILABLE = "UNAVAILABLE"


def versions_of(view: ModelView) -> Sequence[str]:
    """Return the versions that are served, or the last one that was."""
    return view.live_versions or (view.card.version,)


def check_version(view: ModelView, version: str) -> None:
    """Accept a version that is served; the empty one means any.

    Raises:
        ModelNotFound: it is not served.
    """
    if version and version not in versions_of(view):
        raise ModelNotFound(
            f"{view.card.name}/{version}",
            f"model {view.card.name!r} has no version {quoted(version)} here; "
            f"served: {', '.join(versions_of(view))}",
        )


def to_metadata(view: ModelView) -> pb.ModelMetadataResponse:
    """Return which tensors a model takes and gives, in the shapes that `to_config` says."""
    tensor = pb.ModelMetadataResponse.TensorMetadata
    return pb.ModelMetadataResponse(
        name=view.card.name,
        versions=versions_of(view),
        platform=view.card.engine,
        inputs=[tensor(name=IMAGE, datatype=BYTES, shape=[ANY, 1])],
        outputs=[
            tensor(name=SCORES, datatype=FP32, shape=[ANY, len(view.card.labels)]),
            tensor(name=LABELS, datatype=BYTES, shape=[ANY, 1]),
        ],
    )


def to_config(view: ModelView) -> pb.ModelConfig:
    """Return how a model is served, as far as Triton has words for it."""
    card = view.card
    return pb.ModelConfig(
        name=card.name,
        platform=card.engine,
        version_policy=pb.ModelVersionPolicy(latest=pb.ModelVersionPolicy.Latest(num_versions=1)),
        max_batch_size=MAX_IMAGES,
        # Triton's tools want a dimension beside the batch of every tensor, and the batch and
        # these together in the metadata.
        input=[pb.ModelInput(name=IMAGE, data_type=pb.TYPE_STRING, dims=[1])],
        output=[
            pb.ModelOutput(name=SCORES, data_type=pb.TYPE_FP32, dims=[len(card.labels)]),
            pb.ModelOutput(name=LABELS, data_type=pb.TYPE_STRING, dims=[1]),
        ],
        instance_group=[
            pb.ModelInstanceGroup(
                name=card.name,
                kind=pb.ModelInstanceGroup.KIND_MODEL,
                count=view.ready_workers,
            )
        ],
        dynamic_batching=pb.ModelDynamicBatching(
            preferred_batch_size=[card.max_batch_size],
            priority_levels=PRIORITY_LEVELS,
            default_priority_level=DEFAULT_PRIORITY,
        ),
        model_transaction_policy=pb.ModelTransactionPolicy(decoupled=False),
    )


def to_index(views: Sequence[ModelView], *, ready_only: bool) -> pb.RepositoryIndexResponse:
    """Return the models, one entry for each version of each."""
    return pb.RepositoryIndexResponse(
        models=[
            pb.RepositoryIndexResponse.ModelIndex(
                name=view.card.name, version=version, state=_state(view), reason=_reason(view)
            )
            for view in views
            if view.ready_workers or not ready_only
            for version in versions_of(view)
        ]
    )


def _state(view: ModelView) -> str:
    if view.ready_workers:
        return READY
    return LOADING if view.loading_workers else UNAVAILABLE


def _reason(view: ModelView) -> str:
    reasons = {READY: "", LOADING: "workers are loading it", UNAVAILABLE: "no worker serves it"}
    return reasons[_state(view)]
