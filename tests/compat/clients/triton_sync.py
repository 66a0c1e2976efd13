"""Tries `tritonclient.grpc` at everything; see `cells.py`."""

import queue
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from tritonclient.grpc import model_config_pb2, service_pb2

from tests.compat.clients import cells, triton_access
from tests.compat.clients.cells import BLUISH, COLOURS, GREENISH, MODEL, REDDISH, Target
from tests.compat.clients.triton_calls import LIMIT_S, client_of, failure_of, image_input


def contract(target: Target) -> None:
    """Compare what the client was generated from with our contract."""
    files = [FileDescriptorProto(), FileDescriptorProto()]
    for module, file in zip((service_pb2, model_config_pb2), files, strict=True):
        module.DESCRIPTOR.CopyToProto(file)
    cells.check_contract(target, *files)


def health(target: Target) -> None:
    """Ask whether the server lives."""
    with client_of(target) as client:
        assert client.is_server_live()
        assert client.is_server_ready()


def server_metadata(target: Target) -> None:
    """Ask what the server is."""
    with client_of(target) as client:
        metadata = client.get_server_metadata(as_json=True)
    assert metadata["name"] == "despacho"
    assert "classification" in metadata["extensions"]


def model_ready(target: Target) -> None:
    """Ask whether models are ready."""
    with client_of(target) as client:
        assert client.is_model_ready(MODEL)
        assert client.is_model_ready(MODEL, "1")
        assert not client.is_model_ready("nobody")


def model_metadata(target: Target) -> None:
    """Ask which tensors there are."""
    with client_of(target) as client:
        metadata = client.get_model_metadata(MODEL)
    assert list(metadata.versions) == ["1"]
    assert [(each.name, each.datatype, list(each.shape)) for each in metadata.inputs] == [
        ("image", "BYTES", [-1, 1])
    ]
    assert [(each.name, each.datatype, list(each.shape)) for each in metadata.outputs] == [
        ("scores", "FP32", [-1, 3]),
        ("labels", "BYTES", [-1, 1]),
    ]


def model_config(target: Target) -> None:
    """Ask how the model is served."""
    with client_of(target) as client:
        config = client.get_model_config(MODEL, as_json=True)["config"]
    assert config["name"] == MODEL
    assert config["max_batch_size"] == 64
    assert config["input"] == [{"name": "image", "data_type": "TYPE_STRING", "dims": ["1"]}]
    assert config["instance_group"] == [{"name": MODEL, "count": 1, "kind": "KIND_MODEL"}]
    assert config["dynamic_batching"]["preferred_batch_size"] == [8]


def statistics(target: Target) -> None:
    """Ask what was done, before and after doing something."""
    with client_of(target) as client:
        [before] = client.get_inference_statistics(MODEL).model_stats
        client.infer(MODEL, [image_input(*target.images())])
        [after] = client.get_inference_statistics(MODEL).model_stats
    assert after.inference_count >= before.inference_count + len(COLOURS)
    assert after.inference_stats.success.count > before.inference_stats.success.count
    assert after.inference_stats.compute_infer.ns > before.inference_stats.compute_infer.ns
    assert after.last_inference > before.last_inference


def repository_index(target: Target) -> None:
    """Ask which models there are."""
    with client_of(target) as client:
        models = client.get_model_repository_index().models
    assert [(each.name, each.version, each.state) for each in models] == [(MODEL, "1", "READY")]


def infer_raw(target: Target) -> None:
    """Label one image."""
    with client_of(target) as client:
        result = client.infer(MODEL, [image_input(target.image(GREENISH))])
    assert result.as_numpy("scores").dtype == np.float32
    cells.check_scores(result.as_numpy("scores")[0].tolist(), GREENISH)
    assert result.as_numpy("labels").tolist() == [[b"green"]]


def infer_many(target: Target) -> None:
    """Label three images, in both shapes that mean that."""
    column = triton.InferInput("image", [3, 1], "BYTES")
    column.set_data_from_numpy(np.array(target.images(), dtype=np.object_).reshape(3, 1))
    with client_of(target) as client:
        for tensor in (image_input(*target.images()), column):
            result = client.infer(MODEL, [tensor])
            assert result.as_numpy("labels").tolist() == [[b"red"], [b"green"], [b"blue"]]
            for row, colour in zip(result.as_numpy("scores"), COLOURS, strict=True):
                cells.check_scores(row.tolist(), colour)


def outputs(target: Target) -> None:
    """Ask for one of two outputs."""
    with client_of(target) as client:
        wanted = [triton.InferRequestedOutput("labels")]
        result = client.infer(MODEL, [image_input(target.image(BLUISH))], outputs=wanted)
    assert result.as_numpy("labels").tolist() == [[b"blue"]]
    assert result.as_numpy("scores") is None


def classification(target: Target) -> None:
    """Ask for the two best classes."""
    with client_of(target) as client:
        wanted = [triton.InferRequestedOutput("scores", class_count=2)]
        result = client.infer(MODEL, [image_input(*target.images())], outputs=wanted)
    assert result.as_numpy("scores").shape == (3, 2)
    for row, colour in zip(result.as_numpy("scores"), COLOURS, strict=True):
        cells.check_classes(row.tolist(), colour)


def request_id(target: Target) -> None:
    """Find the own id in the response."""
    with client_of(target) as client:
        result = client.infer(MODEL, [image_input(target.image(REDDISH))], request_id="order-7")
    assert result.get_response().id == "order-7"


def model_version(target: Target) -> None:
    """Ask for versions."""
    with client_of(target) as client:
        tensor = image_input(target.image(REDDISH))
        result = client.infer(MODEL, [tensor], model_version="1")
        assert result.get_response().model_version == "1"
        status, _ = failure_of(lambda: client.infer(MODEL, [tensor], model_version="2"))
        assert status == "StatusCode.NOT_FOUND"


def priority(target: Target) -> None:
    """Say how soon it matters."""
    with client_of(target) as client:
        tensor = image_input(target.image(REDDISH))
        for number in (1, 2, 3):
            client.infer(MODEL, [tensor], priority=number)
        status, message = failure_of(lambda: client.infer(MODEL, [tensor], priority=4))
    assert status == "StatusCode.INVALID_ARGUMENT"
    assert "priority is 4" in message


def timeout(target: Target) -> None:
    """Give the request less time than the model takes."""
    with client_of(target) as client:
        tensor = image_input(target.image(REDDISH))
        client.infer(MODEL, [tensor], timeout=LIMIT_S * 1_000_000)
        status, _ = failure_of(lambda: client.infer(MODEL, [tensor], timeout=10_000))
    assert status == "StatusCode.DEADLINE_EXCEEDED"


def deadline(target: Target) -> None:
    """Give the call less time than the model takes."""
    with client_of(target) as client:
        tensor = image_input(target.image(REDDISH))
        client.infer(MODEL, [tensor], client_timeout=LIMIT_S)
        status, _ = failure_of(lambda: client.infer(MODEL, [tensor], client_timeout=0.02))
    assert status == "StatusCode.DEADLINE_EXCEEDED"


def compression(target: Target) -> None:
    """Send it compressed."""
    with client_of(target) as client:
        for algorithm in ("gzip", "deflate"):
            result = client.infer(
                MODEL, [image_input(target.image(REDDISH))], compression_algorithm=algorithm
            )
            assert result.as_numpy("labels").tolist() == [[b"red"]]


def bad_image(target: Target) -> None:
    """Send a bad image among good ones."""
    with client_of(target) as client:
        tensor = image_input(target.image(REDDISH), cells.NO_IMAGE, target.image(BLUISH))
        status, message = failure_of(lambda: client.infer(MODEL, [tensor]))
    assert status == "StatusCode.INVALID_ARGUMENT"
    assert message.startswith("image 2 of 3: "), message


def bad_tensor(target: Target) -> None:
    """Send pixels."""
    pixels = triton.InferInput("image", [1, 2, 2, 3], "UINT8")
    pixels.set_data_from_numpy(np.zeros((1, 2, 2, 3), dtype=np.uint8))
    with client_of(target) as client:
        status, message = failure_of(lambda: client.infer(MODEL, [pixels]))
    assert status == "StatusCode.INVALID_ARGUMENT"
    assert "'UINT8'" in message


def unknown_model(target: Target) -> None:
    """Ask for what nobody serves."""
    with client_of(target) as client:
        tensor = image_input(target.image(REDDISH))
        assert failure_of(lambda: client.infer("nobody", [tensor]))[0] == "StatusCode.NOT_FOUND"
        assert failure_of(lambda: client.get_model_config("nobody"))[0] == "StatusCode.NOT_FOUND"


def model_fails(target: Target) -> None:
    """Send what the model raises at."""
    with client_of(target) as client:
        tensor = image_input(target.image(cells.RAISES))
        assert failure_of(lambda: client.infer(MODEL, [tensor]))[0] == "StatusCode.INTERNAL"


def at_once(target: Target) -> None:
    """Have ten calls in progress, with `async_infer`."""
    answers: queue.Queue[Any] = queue.Queue()
    with client_of(target) as client:
        for number in range(10):
            colour = COLOURS[number % 3]
            client.async_infer(
                MODEL,
                [image_input(target.image(colour))],
                lambda result, error, colour=colour: answers.put((colour, result, error)),
            )
        for _ in range(10):
            colour, result, error = answers.get(timeout=LIMIT_S)
            assert error is None, error
            cells.check_scores(result.as_numpy("scores")[0].tolist(), colour)


def cancel(target: Target) -> None:
    """Give a call up."""
    errors: queue.Queue[Any] = queue.Queue()
    with client_of(target) as client:
        call = client.async_infer(
            MODEL,
            [image_input(target.image(REDDISH))],
            lambda result, error: errors.put((result, error)),
        )
        call.cancel()
        _, error = errors.get(timeout=LIMIT_S)
    assert error.status() == "StatusCode.CANCELLED"


def streamed(target: Target, *images: bytes, **headers: str) -> list[tuple[Any, Any]]:
    """Return what a stream of requests says, one for each image; the id is the number."""
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    with client_of(target) as client:
        client.start_stream(lambda result, error: answers.put((result, error)), headers=headers)
        for number, image in enumerate(images):
            client.async_stream_infer(MODEL, [image_input(image)], request_id=str(number))
        client.stop_stream()
    return [answers.get_nowait() for _ in range(answers.qsize())]


def stream(target: Target) -> None:
    """Send thirty requests."""
    colours = COLOURS * 10
    answers = streamed(target, *(target.image(colour) for colour in colours))
    assert [result.get_response().id for result, _ in answers] == [str(n) for n in range(30)]
    for (result, _), colour in zip(answers, colours, strict=True):
        cells.check_scores(result.as_numpy("scores")[0].tolist(), colour)
        assert result.get_response().parameters["triton_final_response"].bool_param


def stream_error(target: Target) -> None:
    """Send a bad image between good ones."""
    first, second, third = streamed(
        target, target.image(REDDISH), cells.NO_IMAGE, target.image(BLUISH)
    )
    assert first[0].as_numpy("labels").tolist() == [[b"red"]]
    assert second[1].message().startswith("IMAGE_"), second
    assert third[0].as_numpy("labels").tolist() == [[b"blue"]]


def stream_status(target: Target) -> None:
    """Ask for the status of the first that fails."""
    images = (target.image(REDDISH), cells.NO_IMAGE, target.image(BLUISH))
    first, second = streamed(target, *images, triton_grpc_error="true")
    assert first[0].as_numpy("labels").tolist() == [[b"red"]]
    assert second[1].status() == "StatusCode.INVALID_ARGUMENT"


def unimplemented(target: Target) -> None:
    """Call what makes no sense here."""
    with client_of(target) as client:
        for call in (
            lambda: client.load_model(MODEL),
            lambda: client.unload_model(MODEL),
            client.get_system_shared_memory_status,
            client.get_cuda_shared_memory_status,
            client.get_trace_settings,
            client.get_log_settings,
        ):
            assert failure_of(call)[0] == "StatusCode.UNIMPLEMENTED"


CELLS = {
    "contract": contract,
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
    **triton_access.CELLS,
}

if __name__ == "__main__":
    cells.run(CELLS, packages=["tritonclient", "grpcio", "protobuf"])
