"""Requests of the Open Inference Protocol, for tests."""

import struct
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from despacho.job.v1 import job_pb2
from inference import grpc_predict_v2_pb2 as pb
from inference.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub
from tests.front_end import LIMIT_S, MODEL, FrontEnd

if TYPE_CHECKING:
    from inference.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceAsyncStub

InputTensor = pb.ModelInferRequest.InferInputTensor
RequestedOutput = pb.ModelInferRequest.InferRequestedOutputTensor


def stub_of(front: FrontEnd) -> "GRPCInferenceServiceAsyncStub":
    return GRPCInferenceServiceStub(front.channel)


def typed(*images: bytes, **fields: Any) -> pb.ModelInferRequest:
    contents = pb.InferTensorContents(bytes_contents=images)
    tensor = InputTensor(name="image", datatype="BYTES", shape=[len(images)], contents=contents)
    return pb.ModelInferRequest(model_name=MODEL, inputs=[tensor], **fields)


def raw(*images: bytes, **fields: Any) -> pb.ModelInferRequest:
    content = b"".join(struct.pack("<I", len(image)) + image for image in images)
    tensor = InputTensor(name="image", datatype="BYTES", shape=[len(images)])
    return pb.ModelInferRequest(
        model_name=MODEL, inputs=[tensor], raw_input_contents=[content], **fields
    )


def whole(number: int) -> pb.InferParameter:
    return pb.InferParameter(int64_param=number)


def classified(count: int, name: str = "scores") -> RequestedOutput:
    return RequestedOutput(name=name, parameters={"classification": whole(count)})


async def infer(front: FrontEnd, request: pb.ModelInferRequest) -> pb.ModelInferResponse:
    return await stub_of(front).ModelInfer(request, timeout=LIMIT_S)


async def refusal(front: FrontEnd, request: pb.ModelInferRequest) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await infer(front, request)
    return caught.value


def answer_as(front: FrontEnd, versions: dict[bytes, tuple[str, int]]) -> None:
    """Let images be answered by a version with so many classes."""
    predict = front.relay.predict

    async def answered(job: job_pb2.Job, image: bytes, **options: Any) -> job_pb2.Reply:
        reply = await predict(job, image, **options)
        version, classes = versions[image]
        reply.answer.model_version = version
        if job.include_scores:
            reply.answer.scores[:] = [0.5] * classes
        return reply

    front.relay.predict = answered  # type: ignore[method-assign]


async def streamed(
    front: FrontEnd, *requests: pb.ModelInferRequest, strict: str = ""
) -> list[pb.ModelStreamInferResponse]:
    metadata = (("triton_grpc_error", strict),) if strict else ()
    call = stub_of(front).ModelStreamInfer(iter(requests), metadata=metadata, timeout=LIMIT_S)
    return [response async for response in call]
