"""Tries KServe's `InferenceGRPCClient` at everything it can; see `cells.py`."""

import asyncio
from collections.abc import Awaitable
from typing import Any

import grpc
import numpy as np
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from kserve import InferenceGRPCClient, InferInput, InferRequest
from kserve.protocol.grpc import grpc_predict_v2_pb2
from kserve.protocol.infer_type import RequestedOutput

from tests.compat.clients import cells
from tests.compat.clients.cells import BLUISH, COLOURS, GREENISH, MODEL, REDDISH, Target


def client_of(target: Target) -> Any:
    """Return a client as its documentation makes one."""
    return InferenceGRPCClient(url=target.address)


def raw(*images: bytes, **options: Any) -> Any:
    """Return a request whose content is raw."""
    tensor = InferInput(name="image", shape=[len(images)], datatype="BYTES")
    tensor.set_data_from_numpy(np.array(images, dtype=np.object_))
    return InferRequest(**({"model_name": MODEL} | options), infer_inputs=[tensor])


def typed(*images: bytes, **options: Any) -> Any:
    """Return a request whose content is typed."""
    tensor = InferInput(name="image", shape=[len(images)], datatype="BYTES", data=list(images))
    return InferRequest(**({"model_name": MODEL} | options), infer_inputs=[tensor])


def output(response: Any, name: str) -> Any:
    """Return one output of a response as an array."""
    return response.get_output_by_name(name).as_numpy()


async def status_of(call: Awaitable[Any]) -> tuple[grpc.StatusCode, str]:
    """Return the status and the message of a call that has to fail."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details() or ""
    raise AssertionError("the call did not fail")


def contract(target: Target) -> None:
    """Compare what the client was generated from with our contract."""
    file = FileDescriptorProto()
    grpc_predict_v2_pb2.DESCRIPTOR.CopyToProto(file)
    cells.check_contract(target, file, may_lack=True)


async def health(target: Target) -> None:
    """Ask whether the server lives."""
    async with client_of(target) as client:
        assert await client.is_server_live()
        assert await client.is_server_ready()


async def model_ready(target: Target) -> None:
    """Ask whether models are ready."""
    async with client_of(target) as client:
        assert await client.is_model_ready(MODEL)
        assert not await client.is_model_ready("nobody")


async def infer_raw(target: Target) -> None:
    """Label one image."""
    async with client_of(target) as client:
        response = await client.infer(raw(target.image(GREENISH)))
    cells.check_scores(output(response, "scores")[0].tolist(), GREENISH)
    assert output(response, "labels").tolist() == [[b"green"]]


async def infer_typed(target: Target) -> None:
    """Label one image."""
    async with client_of(target) as client:
        response = await client.infer(typed(target.image(GREENISH)))
    cells.check_scores(output(response, "scores")[0].tolist(), GREENISH)
    assert output(response, "labels").tolist() == [[b"green"]]


async def infer_many(target: Target) -> None:
    """Label three images."""
    async with client_of(target) as client:
        for request in (raw(*target.images()), typed(*target.images())):
            response = await client.infer(request)
            for row, colour in zip(output(response, "scores"), COLOURS, strict=True):
                cells.check_scores(row.tolist(), colour)


async def outputs(target: Target) -> None:
    """Ask for one of two outputs."""
    async with client_of(target) as client:
        wanted = [RequestedOutput("labels")]
        response = await client.infer(raw(target.image(BLUISH), request_outputs=wanted))
    assert [each.name for each in response.outputs] == ["labels"]


async def classification(target: Target) -> None:
    """Ask for the two best classes."""
    wanted = [RequestedOutput("scores", parameters={"classification": 2})]
    async with client_of(target) as client:
        for make in (raw, typed):
            response = await client.infer(make(target.image(BLUISH), request_outputs=wanted))
            cells.check_classes(output(response, "scores")[0].tolist(), BLUISH)


async def request_id(target: Target) -> None:
    """Find the own id in the response."""
    async with client_of(target) as client:
        response = await client.infer(raw(target.image(REDDISH), request_id="order-7"))
    assert response.id == "order-7"


async def model_version(target: Target) -> None:
    """Ask for versions."""
    async with client_of(target) as client:
        response = await client.infer(raw(target.image(REDDISH), model_version="1"))
        assert response.model_version == "1"
        code, _ = await status_of(client.infer(raw(target.image(REDDISH), model_version="2")))
    assert code is grpc.StatusCode.NOT_FOUND


async def priority(target: Target) -> None:
    """Say how soon it matters."""
    async with client_of(target) as client:
        image = target.image(REDDISH)
        for number in (1, 2, 3):
            await client.infer(raw(image, parameters={"priority": number}))
        code, _ = await status_of(client.infer(raw(image, parameters={"priority": 4})))
    assert code is grpc.StatusCode.INVALID_ARGUMENT


async def timeout(target: Target) -> None:
    """Give the request less time than the model takes."""
    async with client_of(target) as client:
        request = raw(target.image(REDDISH), parameters={"timeout": 10_000})
        code, _ = await status_of(client.infer(request))
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED


async def deadline(target: Target) -> None:
    """Give the call less time than the model takes."""
    async with client_of(target) as client:
        code, _ = await status_of(client.infer(raw(target.image(REDDISH)), timeout=0.02))
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED


async def bad_image(target: Target) -> None:
    """Send a bad image among good ones."""
    async with client_of(target) as client:
        request = raw(target.image(REDDISH), cells.NO_IMAGE, target.image(BLUISH))
        code, message = await status_of(client.infer(request))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert message.startswith("image 2 of 3: "), message


async def bad_tensor(target: Target) -> None:
    """Send pixels, typed."""
    tensor = InferInput(name="image", shape=[2], datatype="FP32", data=[0.5, 0.5])
    async with client_of(target) as client:
        request = InferRequest(model_name=MODEL, infer_inputs=[tensor])
        code, message = await status_of(client.infer(request))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "'FP32'" in message


async def unknown_model(target: Target) -> None:
    """Ask for what nobody serves."""
    async with client_of(target) as client:
        request = raw(target.image(REDDISH), model_name="nobody")
        code, _ = await status_of(client.infer(request))
    assert code is grpc.StatusCode.NOT_FOUND


async def model_fails(target: Target) -> None:
    """Send what the model raises at."""
    async with client_of(target) as client:
        code, _ = await status_of(client.infer(raw(target.image(cells.RAISES))))
    assert code is grpc.StatusCode.INTERNAL


async def at_once(target: Target) -> None:
    """Have thirty calls in progress."""
    colours = COLOURS * 10
    async with client_of(target) as client:
        responses = await asyncio.gather(
            *(client.infer(raw(target.image(colour))) for colour in colours)
        )
    for response, colour in zip(responses, colours, strict=True):
        cells.check_scores(output(response, "scores")[0].tolist(), colour)


async def cancel(target: Target) -> None:
    """Give a call up; others go on."""
    async with client_of(target) as client:
        await client.is_server_live()
        call = asyncio.create_task(client.infer(raw(target.image(REDDISH))))
        done, _ = await asyncio.wait([call], timeout=0.01)
        assert not done
        call.cancel()
        await asyncio.wait([call])
        assert call.cancelled()
        response = await client.infer(raw(target.image(REDDISH)))
        assert output(response, "labels").tolist() == [[b"red"]]


def encrypted(address: str, roots: str, *identity: str) -> Any:
    """Return a client that trusts `roots` and shows the certificate in two files, if any."""
    certificate, private_key = identity or (None, None)
    return InferenceGRPCClient(
        url=address,
        use_ssl=True,
        root_certificates=roots,
        certificate_chain=certificate,
        private_key=private_key,
    )


async def tls(target: Target) -> None:
    """Encrypt."""
    guarded = target.guarded
    async with encrypted(guarded.keyed, guarded.roots) as client:
        assert await client.is_server_live()
    async with encrypted(guarded.keyed, guarded.other_roots) as client:
        assert (await status_of(client.is_server_live()))[0] is grpc.StatusCode.UNAVAILABLE


async def api_key(target: Target) -> None:
    """Send a key with each call."""
    guarded = target.guarded
    async with encrypted(guarded.keyed, guarded.roots) as client:
        request = raw(target.image(REDDISH))
        response = await client.infer(request, headers=tuple(guarded.headers().items()))
        assert output(response, "labels").tolist() == [[b"red"]]
        for headers in ((), tuple(guarded.headers("wrong").items())):
            code, _ = await status_of(client.infer(request, headers=headers))
            assert code is grpc.StatusCode.UNAUTHENTICATED


async def certificate(target: Target) -> None:
    """Show a certificate."""
    guarded = target.guarded
    known = (guarded.certificate, guarded.private_key)
    async with encrypted(guarded.mutual, guarded.roots, *known) as client:
        response = await client.infer(raw(target.image(REDDISH)))
        assert output(response, "labels").tolist() == [[b"red"]]
    async with encrypted(guarded.mutual, guarded.roots) as client:
        assert (await status_of(client.is_server_live()))[0] is grpc.StatusCode.UNAVAILABLE


CELLS = {
    "contract": contract,
    "health": health,
    "model-ready": model_ready,
    "infer-raw": infer_raw,
    "infer-typed": infer_typed,
    "infer-many": infer_many,
    "outputs": outputs,
    "classification": classification,
    "request-id": request_id,
    "model-version": model_version,
    "priority": priority,
    "timeout": timeout,
    "deadline": deadline,
    "bad-image": bad_image,
    "bad-tensor": bad_tensor,
    "unknown-model": unknown_model,
    "model-fails": model_fails,
    "at-once": at_once,
    "cancel": cancel,
    "tls": tls,
    "api-key": api_key,
    "certificate": certificate,
}

if __name__ == "__main__":
    cells.run(CELLS, packages=["kserve", "grpcio", "protobuf"])
