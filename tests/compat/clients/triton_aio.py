"""Tries `tritonclient.grpc.aio` at everything; see `cells.py`."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import grpc
import numpy as np
import tritonclient.grpc.aio as triton
from tritonclient.utils import InferenceServerException

from tests.compat.clients import cells, triton_sync
from tests.compat.clients.cells import BLUISH, COLOURS, GREENISH, MODEL, REDDISH, Target
from tests.compat.clients.triton_calls import LIMIT_S, image_input


def client_of(target: Target) -> Any:
    """Return a client as its documentation makes one."""
    return triton.InferenceServerClient(target.address)


async def failure_of(call: Awaitable[Any]) -> tuple[str, str]:
    """Return the status and the message of a call that has to fail."""
    try:
        await call
    except InferenceServerException as error:
        return error.status(), error.message()
    raise AssertionError("the call did not fail")


async def health(target: Target) -> None:
    """Ask whether the server lives."""
    async with client_of(target) as client:
        assert await client.is_server_live()
        assert await client.is_server_ready()


async def server_metadata(target: Target) -> None:
    """Ask what the server is."""
    async with client_of(target) as client:
        metadata = await client.get_server_metadata()
    assert metadata.name == "despacho"


async def model_ready(target: Target) -> None:
    """Ask whether models are ready."""
    async with client_of(target) as client:
        assert await client.is_model_ready(MODEL)
        assert not await client.is_model_ready("nobody")


async def model_metadata(target: Target) -> None:
    """Ask which tensors there are."""
    async with client_of(target) as client:
        metadata = await client.get_model_metadata(MODEL)
    assert [each.name for each in metadata.inputs] == ["image"]
    assert [each.name for each in metadata.outputs] == ["scores", "labels"]


async def model_config(target: Target) -> None:
    """Ask how the model is served."""
    async with client_of(target) as client:
        config = (await client.get_model_config(MODEL)).config
    assert (config.name, config.max_batch_size) == (MODEL, 64)
    assert config.dynamic_batching.priority_levels == 3


async def statistics(target: Target) -> None:
    """Ask what was done."""
    async with client_of(target) as client:
        await client.infer(MODEL, [image_input(target.image(REDDISH))])
        [found] = (await client.get_inference_statistics(MODEL)).model_stats
    assert found.inference_count > 0
    assert found.batch_stats[0].compute_infer.ns > 0


async def repository_index(target: Target) -> None:
    """Ask which models there are."""
    async with client_of(target) as client:
        models = (await client.get_model_repository_index()).models
    assert [(each.name, each.state) for each in models] == [(MODEL, "READY")]


async def infer_raw(target: Target) -> None:
    """Label one image."""
    async with client_of(target) as client:
        result = await client.infer(MODEL, [image_input(target.image(GREENISH))])
    cells.check_scores(result.as_numpy("scores")[0].tolist(), GREENISH)
    assert result.as_numpy("labels").tolist() == [[b"green"]]


async def infer_many(target: Target) -> None:
    """Label three images."""
    async with client_of(target) as client:
        result = await client.infer(MODEL, [image_input(*target.images())])
    for row, colour in zip(result.as_numpy("scores"), COLOURS, strict=True):
        cells.check_scores(row.tolist(), colour)


async def outputs(target: Target) -> None:
    """Ask for one of two outputs."""
    async with client_of(target) as client:
        wanted = [triton.InferRequestedOutput("scores")]
        result = await client.infer(MODEL, [image_input(target.image(BLUISH))], outputs=wanted)
    cells.check_scores(result.as_numpy("scores")[0].tolist(), BLUISH)
    assert result.as_numpy("labels") is None


async def classification(target: Target) -> None:
    """Ask for more classes than there are."""
    async with client_of(target) as client:
        wanted = [triton.InferRequestedOutput("scores", class_count=5)]
        result = await client.infer(MODEL, [image_input(*target.images())], outputs=wanted)
    assert result.as_numpy("scores").shape == (3, 3)
    for row, colour in zip(result.as_numpy("scores"), COLOURS, strict=True):
        cells.check_classes(row.tolist(), colour)


async def request_id(target: Target) -> None:
    """Find the own id in the response."""
    async with client_of(target) as client:
        tensor = image_input(target.image(REDDISH))
        result = await client.infer(MODEL, [tensor], request_id="order-7")
    assert result.get_response().id == "order-7"


async def model_version(target: Target) -> None:
    """Ask for versions."""
    async with client_of(target) as client:
        tensor = image_input(target.image(REDDISH))
        await client.infer(MODEL, [tensor], model_version="1")
        status, _ = await failure_of(client.infer(MODEL, [tensor], model_version="2"))
    assert status == "StatusCode.NOT_FOUND"


async def priority(target: Target) -> None:
    """Say how soon it matters."""
    async with client_of(target) as client:
        tensor = image_input(target.image(REDDISH))
        for number in (1, 2, 3):
            await client.infer(MODEL, [tensor], priority=number)
        status, _ = await failure_of(client.infer(MODEL, [tensor], priority=4))
    assert status == "StatusCode.INVALID_ARGUMENT"


async def timeout(target: Target) -> None:
    """Give the request less time than the model takes."""
    async with client_of(target) as client:
        tensor = image_input(target.image(REDDISH))
        await client.infer(MODEL, [tensor], timeout=LIMIT_S * 1_000_000)
        status, _ = await failure_of(client.infer(MODEL, [tensor], timeout=10_000))
    assert status == "StatusCode.DEADLINE_EXCEEDED"


async def deadline(target: Target) -> None:
    """Give the call less time than the model takes."""
    async with client_of(target) as client:
        tensor = image_input(target.image(REDDISH))
        status, _ = await failure_of(client.infer(MODEL, [tensor], client_timeout=0.02))
    assert status == "StatusCode.DEADLINE_EXCEEDED"


async def compression(target: Target) -> None:
    """Send it compressed."""
    async with client_of(target) as client:
        tensor = image_input(target.image(REDDISH))
        result = await client.infer(MODEL, [tensor], compression_algorithm="gzip")
    assert result.as_numpy("labels").tolist() == [[b"red"]]


async def bad_image(target: Target) -> None:
    """Send a bad image among good ones."""
    async with client_of(target) as client:
        tensor = image_input(target.image(REDDISH), cells.NO_IMAGE, target.image(BLUISH))
        status, message = await failure_of(client.infer(MODEL, [tensor]))
    assert status == "StatusCode.INVALID_ARGUMENT"
    assert message.startswith("image 2 of 3: "), message


async def bad_tensor(target: Target) -> None:
    """Send an input that the model does not have."""
    tensor = triton.InferInput("pixels", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([target.image(REDDISH)], dtype=np.object_))
    async with client_of(target) as client:
        status, message = await failure_of(client.infer(MODEL, [tensor]))
    assert status == "StatusCode.INVALID_ARGUMENT"
    assert "'pixels'" in message


async def unknown_model(target: Target) -> None:
    """Ask for what nobody serves."""
    async with client_of(target) as client:
        tensor = image_input(target.image(REDDISH))
        status, _ = await failure_of(client.infer("nobody", [tensor]))
        assert status == "StatusCode.NOT_FOUND"
        status, _ = await failure_of(client.get_model_metadata("nobody"))
        assert status == "StatusCode.NOT_FOUND"


async def model_fails(target: Target) -> None:
    """Send what the model raises at."""
    async with client_of(target) as client:
        tensor = image_input(target.image(cells.RAISES))
        assert (await failure_of(client.infer(MODEL, [tensor])))[0] == "StatusCode.INTERNAL"


async def at_once(target: Target) -> None:
    """Have thirty calls in progress."""
    colours = COLOURS * 10
    async with client_of(target) as client:
        results = await asyncio.gather(
            *(client.infer(MODEL, [image_input(target.image(colour))]) for colour in colours)
        )
    for result, colour in zip(results, colours, strict=True):
        cells.check_scores(result.as_numpy("scores")[0].tolist(), colour)


async def cancel(target: Target) -> None:
    """Give a call up; others go on."""
    async with client_of(target) as client:
        tensor = image_input(target.image(REDDISH))
        await client.is_server_live()
        call = asyncio.create_task(client.infer(MODEL, [tensor]))
        done, _ = await asyncio.wait([call], timeout=0.01)
        assert not done
        call.cancel()
        await asyncio.wait([call])
        assert call.cancelled()
        assert (await client.infer(MODEL, [tensor])).as_numpy("labels").tolist() == [[b"red"]]


async def streamed(target: Target, *images: bytes, **headers: str) -> AsyncIterator[Any]:
    """Yield what a stream of requests says, one for each image; the id is the number."""

    async def requests() -> AsyncIterator[dict[str, Any]]:
        for number, image in enumerate(images):
            yield {
                "model_name": MODEL,
                "inputs": [image_input(image)],
                "request_id": str(number),
            }

    async with client_of(target) as client:
        async for answer in client.stream_infer(requests(), headers=headers):
            yield answer


async def stream(target: Target) -> None:
    """Send thirty requests."""
    colours = COLOURS * 10
    images = [target.image(colour) for colour in colours]
    answers = [answer async for answer in streamed(target, *images)]
    assert [result.get_response().id for result, _ in answers] == [str(n) for n in range(30)]
    for (result, _), colour in zip(answers, colours, strict=True):
        cells.check_scores(result.as_numpy("scores")[0].tolist(), colour)


async def stream_error(target: Target) -> None:
    """Send a bad image between good ones."""
    images = (target.image(REDDISH), cells.NO_IMAGE, target.image(BLUISH))
    first, second, third = [answer async for answer in streamed(target, *images)]
    assert first[0].as_numpy("labels").tolist() == [[b"red"]]
    assert second[1].message().startswith("IMAGE_"), second
    assert third[0].as_numpy("labels").tolist() == [[b"blue"]]


async def stream_status(target: Target) -> None:
    """Ask for the status of the first that fails."""
    images = (target.image(REDDISH), cells.NO_IMAGE, target.image(BLUISH))
    labels: list[list[bytes]] = []
    code = None
    try:
        async for result, _ in streamed(target, *images, triton_grpc_error="true"):
            labels += result.as_numpy("labels").tolist()
    except grpc.aio.AioRpcError as error:
        code = error.code()
    assert (labels, code) == ([[b"red"]], grpc.StatusCode.INVALID_ARGUMENT)


def encrypted(address: str, roots: str, *identity: str) -> Any:
    """Return a client that trusts `roots` and shows the certificate in two files, if any."""
    certificate, private_key = identity or (None, None)
    return triton.InferenceServerClient(
        address,
        ssl=True,
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
        assert (await failure_of(client.is_server_live()))[0] == "StatusCode.UNAVAILABLE"


async def api_key(target: Target) -> None:
    """Send a key with each call."""
    guarded = target.guarded
    async with encrypted(guarded.keyed, guarded.roots) as client:
        tensor = image_input(target.image(REDDISH))
        result = await client.infer(MODEL, [tensor], headers=guarded.headers())
        assert result.as_numpy("labels").tolist() == [[b"red"]]
        for headers in (None, guarded.headers("wrong")):
            status, _ = await failure_of(client.infer(MODEL, [tensor], headers=headers))
            assert status == "StatusCode.UNAUTHENTICATED"


async def certificate(target: Target) -> None:
    """Show a certificate."""
    guarded = target.guarded
    known = (guarded.certificate, guarded.private_key)
    async with encrypted(guarded.mutual, guarded.roots, *known) as client:
        result = await client.infer(MODEL, [image_input(target.image(REDDISH))])
        assert result.as_numpy("labels").tolist() == [[b"red"]]
    async with encrypted(guarded.mutual, guarded.roots) as client:
        assert (await failure_of(client.is_server_live()))[0] == "StatusCode.UNAVAILABLE"


async def unimplemented(target: Target) -> None:
    """Call what makes no sense here."""
    async with client_of(target) as client:
        for call in (
            client.load_model(MODEL),
            client.unload_model(MODEL),
            client.get_system_shared_memory_status(),
            client.get_cuda_shared_memory_status(),
            client.get_trace_settings(),
            client.get_log_settings(),
        ):
            assert (await failure_of(call))[0] == "StatusCode.UNIMPLEMENTED"


CELLS = {
    "contract": triton_sync.contract,
    "health": health,
    "server-metadata": server_metadata,
    "model-ready": model_ready,
    "model-metadata": model_metadata,
    "model-config": model_config,
    "statistics": statistics,
    "repository-index": repository_index,
    "infer-raw": infer_raw,
    "infer-many": infer_many,
    "outputs": outputs,
    "classification": classification,
    "request-id": request_id,
    "model-version": model_version,
    "priority": priority,
    "timeout": timeout,
    "deadline": deadline,
    "compression": compression,
    "bad-image": bad_image,
    "bad-tensor": bad_tensor,
    "unknown-model": unknown_model,
    "model-fails": model_fails,
    "at-once": at_once,
    "cancel": cancel,
    "stream": stream,
    "stream-error": stream_error,
    "stream-status": stream_status,
    "unimplemented": unimplemented,
    "tls": tls,
    "api-key": api_key,
    "certificate": certificate,
}

if __name__ == "__main__":
    cells.run(CELLS, packages=["tritonclient", "grpcio", "protobuf"])
