"""What a request of the Open Inference Protocol says: one function per rule; no I/O.

A message may have thousands of whatever is repeated, so a rule looks at how many there
are before it looks at them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from dispatch.errors import DespachoError, InvalidArgument, InvalidImage, quoted
from dispatch.jobs import Priority
from inference import grpc_predict_v2_pb2 as pb
from server import tensors, validation

IMAGE: Final = "image"
"""The input: encoded images."""

SCORES: Final = "scores"
"""The output with the probability of every class."""

LABELS: Final = "labels"
"""The output with the name of the best class."""

# As many as one `PredictStream` has in flight by default. A request fails as a whole
# and is answered as a whole, so whoever has more is better served by a stream.
MAX_IMAGES: Final = 64
"""Most images in one request."""

PRIORITIES: Final = {
    0: Priority.NORMAL,
    1: Priority.HIGH,
    2: Priority.NORMAL,
    3: Priority.LOW,
}
"""Triton's priorities, of which 1 is the first and 0 means the default, and ours."""

DEFAULT_PRIORITY: Final = 2
"""What 0 means."""

PRIORITY_LEVELS: Final = 3
"""The last priority."""

SHOWN_DIMENSIONS: Final = 4
"""How much of a shape is looked at, and quoted if it is wrong."""

SHARED_MEMORY: Final = "shared_memory_region"
"""The parameter that says that a tensor is not in the message."""


@dataclass(frozen=True, slots=True)
class Output:
    """One output that is wanted."""

    name: str
    """`SCORES` or `LABELS`."""

    class_count: int = 0
    """How many classes, as texts, in the place of all scores; 0: as it is."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request that obeys the rules."""

    images: list[bytes]
    """Encoded images; at least one."""

    is_raw: bool
    """Whether they came raw, so that the answer has to be raw too."""

    outputs: tuple[Output, ...]
    """What to answer, in this order."""

    priority: Priority
    """How soon it matters."""

    timeout_s: float | None
    """How long the answer may take beside the deadline of the call, seconds; None: no limit."""

    @property
    def top_k(self) -> int:
        """How many labels of each image the outputs need."""
        return max(1, *(output.class_count for output in self.outputs))

    @property
    def includes_scores(self) -> bool:
        """Whether an output needs the scores of all classes."""
        return Output(SCORES) in self.outputs


def to_wanted(request: pb.ModelInferRequest, *, max_image_bytes: int) -> Wanted:
    """Return what `request` asks for.

    Raises:
        InvalidArgument, ImageEmpty, ImageTooLarge: it breaks a rule; the message says which.
    """
    validation.check_request_id(request.id, field="id")
    return Wanted(
        images=to_images(request, max_image_bytes=max_image_bytes),
        is_raw=bool(request.raw_input_contents),
        outputs=to_outputs(request.outputs),
        priority=to_priority(request.parameters),
        timeout_s=to_timeout_s(request.parameters),
    )


def to_images(request: pb.ModelInferRequest, *, max_image_bytes: int) -> list[bytes]:
    """Return the images.

    Raises:
        InvalidArgument: the input is not what the model takes.
        ImageEmpty, ImageTooLarge: one of them is.
    """
    tensor = to_input(request)
    count = to_image_count(tensor)
    if request.raw_input_contents:
        images = tensors.split_raw_bytes(to_raw(request), count, field="raw_input_contents[0]")
    else:
        images = tensors.typed_bytes(tensor.contents, count, field="inputs[0].contents")
    for index, image in enumerate(images):
        try:
            validation.check_image(image, max_bytes=max_image_bytes)
        except InvalidImage as error:
            name_image(error, index, count)
            raise
    return images


def to_input(request: pb.ModelInferRequest) -> pb.ModelInferRequest.InferInputTensor:
    """Return the only input.

    Raises:
        InvalidArgument: there is none, or another one, or its content is elsewhere.
    """
    if len(request.inputs) != 1:
        raise InvalidArgument(
            "inputs", f"the request has {len(request.inputs)} inputs; it must have one, {IMAGE!r}"
        )
    tensor = request.inputs[0]
    if tensor.name != IMAGE:
        raise InvalidArgument(
            "inputs[0].name",
            f"there is no input named {quoted(tensor.name)}; the only one is {IMAGE!r}",
        )
    check_not_shared(tensor.parameters, field="inputs[0].parameters")
    if tensor.datatype != tensors.BYTES:
        raise InvalidArgument(
            "inputs[0].datatype",
            f"input {IMAGE!r} has datatype {quoted(tensor.datatype)}; it must be BYTES, "
            "the encoded file and not its pixels",
        )
    return tensor


def to_image_count(tensor: pb.ModelInferRequest.InferInputTensor) -> int:
    """Return how many images the shape says.

    Raises:
        InvalidArgument: it is not [N] or [N, 1], or N is out of range.
    """
    field = "inputs[0].shape"
    # Cut, because it may be as long as a message.
    shape = list(tensor.shape[:SHOWN_DIMENSIONS])
    if len(shape) not in {1, 2} or shape[0] < 0 or shape[1:] not in ([], [1]):
        raise InvalidArgument(
            field, f"input {IMAGE!r} has shape {shape}; it must be [N] or [N, 1] for N images"
        )
    count = shape[0]
    if not 1 <= count <= MAX_IMAGES:
        raise InvalidArgument(
            field, f"the request has {count} images; it must have 1 to {MAX_IMAGES}"
        )
    return count


def to_raw(request: pb.ModelInferRequest) -> bytes:
    """Return the raw content of the only input.

    Raises:
        InvalidArgument: there is more than that.
    """
    if len(request.raw_input_contents) != len(request.inputs):
        raise InvalidArgument(
            "raw_input_contents",
            f"raw_input_contents has {len(request.raw_input_contents)} entries for "
            f"{len(request.inputs)} inputs",
        )
    if request.inputs[0].HasField("contents"):
        raise InvalidArgument(
            "inputs[0].contents",
            "the input has contents although the request has raw_input_contents; send one of them",
        )
    return request.raw_input_contents[0]


def to_outputs(
    requested: Iterable[pb.ModelInferRequest.InferRequestedOutputTensor],
) -> tuple[Output, ...]:
    """Return which outputs are wanted; all if none is named.

    Raises:
        InvalidArgument: one does not exist, is named twice, or cannot be had in that form.
    """
    outputs: dict[str, Output] = {}
    for index, each in enumerate(requested):
        field = f"outputs[{index}]"
        if each.name not in {SCORES, LABELS}:
            raise InvalidArgument(
                f"{field}.name",
                f"there is no output named {quoted(each.name)}; there are "
                f"{SCORES!r} and {LABELS!r}",
            )
        if each.name in outputs:
            raise InvalidArgument(f"{field}.name", f"output {each.name!r} is requested twice")
        check_not_shared(each.parameters, field=f"{field}.parameters")
        class_count = to_class_count(each, field=f"{field}.parameters.classification")
        outputs[each.name] = Output(each.name, class_count)
    return tuple(outputs.values()) or (Output(SCORES), Output(LABELS))


def to_class_count(output: pb.ModelInferRequest.InferRequestedOutputTensor, *, field: str) -> int:
    """Return how many classes are wanted as texts; 0: none.

    Raises:
        InvalidArgument: it is out of range, or asked of an output without scores.
    """
    class_count = _whole_number(output.parameters, "classification", field=field)
    if not 0 <= class_count <= validation.MAX_TOP_K:
        raise InvalidArgument(
            field, f"classification is {class_count}; it must be from 1 to {validation.MAX_TOP_K}"
        )
    if class_count and output.name != SCORES:
        raise InvalidArgument(field, f"only output {SCORES!r} can have a classification")
    return class_count


def to_priority(parameters: Mapping[str, pb.InferParameter]) -> Priority:
    """Return our name for the priority.

    Raises:
        InvalidArgument: there is no such priority.
    """
    field = "parameters.priority"
    number = _whole_number(parameters, "priority", field=field)
    if number not in PRIORITIES:
        raise InvalidArgument(
            field, f"priority is {number}; it must be from 1 to {PRIORITY_LEVELS}, 1 first"
        )
    return PRIORITIES[number]


def to_timeout_s(parameters: Mapping[str, pb.InferParameter]) -> float | None:
    """Return how long the answer may take, seconds; None: no limit.

    Raises:
        InvalidArgument: it is negative.
    """
    field = "parameters.timeout"
    timeout_us = _whole_number(parameters, "timeout", field=field)
    if timeout_us < 0:
        raise InvalidArgument(field, f"timeout is {timeout_us} microseconds; it cannot be negative")
    return timeout_us / 1_000_000 if timeout_us else None


def check_not_shared(parameters: Mapping[str, pb.InferParameter], *, field: str) -> None:
    """Refuse tensors that are not in the message.

    Raises:
        InvalidArgument: this one is in shared memory.
    """
    if SHARED_MEMORY in parameters:
        raise InvalidArgument(field, "there is no shared memory here; send the tensor itself")


def name_image(error: DespachoError, index: int, count: int) -> None:
    """Let `error` say which image it means, unless there is only one."""
    if count == 1:
        return
    error.args = (f"image {index + 1} of {count}: {error}",)
    if isinstance(error, InvalidImage):
        error.field = f"{IMAGE}[{index}]"


def _whole_number(parameters: Mapping[str, pb.InferParameter], name: str, *, field: str) -> int:
    if name not in parameters:
        return 0
    parameter = parameters[name]
    match parameter.WhichOneof("parameter_choice"):
        case "int64_param":
            return parameter.int64_param
        case "uint64_param":
            return parameter.uint64_param
        case _:
            raise InvalidArgument(field, f"{name} must be a whole number (int64 or uint64)")
