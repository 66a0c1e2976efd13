"""What callers of the Open Inference Protocol learn of the server and its models."""

from dataclasses import replace

import grpc
import pytest

import client
from despacho.job.v1 import job_pb2
from inference import grpc_predict_v2_pb2 as pb
from tests.front_end import LIMIT_S, MODEL, FrontEnd
from tests.inference_requests import stub_of


async def test_a_process_that_answers_is_live(front: FrontEnd) -> None:
    front.fleet.connect(is_connected=False)
    assert (await stub_of(front).ServerLive(pb.ServerLiveRequest())).live


async def test_ready_is_who_has_a_broker(front: FrontEnd) -> None:
    assert (await stub_of(front).ServerReady(pb.ServerReadyRequest())).ready
    front.fleet.connect(is_connected=False)
    assert not (await stub_of(front).ServerReady(pb.ServerReadyRequest())).ready


async def test_the_server_says_what_it_is(front: FrontEnd) -> None:
    metadata = await stub_of(front).ServerMetadata(pb.ServerMetadataRequest())
    assert (metadata.name, metadata.version) == ("despacho", client.__version__)
    assert list(metadata.extensions) == [
        "classification",
        "model_configuration",
        "schedule_policy",
        "statistics",
    ]


@pytest.mark.parametrize(
    ("name", "version", "is_ready"),
    [
        (MODEL, "", True),
        (MODEL, "1.0", True),
        ("", "", True),
        (MODEL, "2.0", False),
        ("nobody", "", False),
    ],
)
async def test_a_model_is_ready_or_not_and_that_is_no_error(
    front: FrontEnd, name: str, version: str, *, is_ready: bool
) -> None:
    request = pb.ModelReadyRequest(name=name, version=version)
    assert (await stub_of(front).ModelReady(request)).ready == is_ready


async def test_a_model_without_a_worker_or_a_broker_is_not_ready(front: FrontEnd) -> None:
    request = pb.ModelReadyRequest(name=MODEL)
    front.fleet.connect(is_connected=False)
    assert not (await stub_of(front).ModelReady(request)).ready
    front.fleet.connect(is_connected=True)
    front.fleet.set_workers(ready=0, loading=1)
    assert not (await stub_of(front).ModelReady(request)).ready


async def test_a_model_tells_its_tensors(front: FrontEnd) -> None:
    metadata = await stub_of(front).ModelMetadata(pb.ModelMetadataRequest(name=MODEL))
    tensor = pb.ModelMetadataResponse.TensorMetadata
    assert metadata == pb.ModelMetadataResponse(
        name=MODEL,
        versions=["1.0"],
        platform="tensorflow",
        inputs=[tensor(name="image", datatype="BYTES", shape=[-1, 1])],
        outputs=[
            tensor(name="scores", datatype="FP32", shape=[-1, 2]),
            tensor(name="labels", datatype="BYTES", shape=[-1, 1]),
        ],
    )


async def test_a_model_tells_its_configuration(front: FrontEnd) -> None:
    config = (await stub_of(front).ModelConfig(pb.ModelConfigRequest(name=MODEL))).config
    assert (config.name, config.platform, config.max_batch_size) == (MODEL, "tensorflow", 64)
    assert list(config.output[0].dims) == [2]
    assert config.instance_group[0].count == 1
    assert list(config.dynamic_batching.preferred_batch_size) == [16]
    assert config.HasField("model_transaction_policy")


async def test_shapes_are_the_batch_and_what_the_configuration_says(front: FrontEnd) -> None:
    stub = stub_of(front)
    metadata = await stub.ModelMetadata(pb.ModelMetadataRequest(name=MODEL))
    config = (await stub.ModelConfig(pb.ModelConfigRequest(name=MODEL))).config
    told = [(each.name, list(each.shape)) for each in [*metadata.inputs, *metadata.outputs]]
    inputs = [(each.name, [-1, *each.dims]) for each in config.input]
    outputs = [(each.name, [-1, *each.dims]) for each in config.output]
    assert told == inputs + outputs


async def test_an_unknown_model_or_version_is_not_found(front: FrontEnd) -> None:
    stub = stub_of(front)
    for name, version in (("nobody", ""), (MODEL, "2.0")):
        for call in (
            stub.ModelMetadata(pb.ModelMetadataRequest(name=name, version=version)),
            stub.ModelConfig(pb.ModelConfigRequest(name=name, version=version)),
            stub.ModelStatistics(pb.ModelStatisticsRequest(name=name, version=version)),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_the_index_tells_states(front: FrontEnd) -> None:
    entry = pb.RepositoryIndexResponse.ModelIndex
    one = front.fleet.views[MODEL]
    front.fleet.views = {
        "gone": replace(one, ready_workers=0, live_versions=()),
        "soon": replace(one, ready_workers=0, loading_workers=1, live_versions=()),
        MODEL: replace(one, live_versions=("1.0", "1.1")),
    }
    for view, name in zip(front.fleet.models(), sorted(front.fleet.views), strict=True):
        card = job_pb2.ModelCard()
        card.CopyFrom(view.card)
        card.name = name
        front.fleet.views[name] = replace(view, card=card)
    index = await stub_of(front).RepositoryIndex(pb.RepositoryIndexRequest())
    assert list(index.models) == [
        entry(name=MODEL, version="1.0", state="READY"),
        entry(name=MODEL, version="1.1", state="READY"),
        entry(name="gone", version="1.0", state="UNAVAILABLE", reason="no worker serves it"),
        entry(name="soon", version="1.0", state="LOADING", reason="workers are loading it"),
    ]
    index = await stub_of(front).RepositoryIndex(pb.RepositoryIndexRequest(ready=True))
    assert {each.name for each in index.models} == {MODEL}
    elsewhere = pb.RepositoryIndexRequest(repository_name="elsewhere")
    assert not (await stub_of(front).RepositoryIndex(elsewhere)).models


async def test_without_a_broker_models_are_not_listed(front: FrontEnd) -> None:
    front.fleet.connect(is_connected=False)
    stub = stub_of(front)
    for call in (
        stub.RepositoryIndex(pb.RepositoryIndexRequest(ready=True)),
        stub.ModelStatistics(pb.ModelStatisticsRequest()),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    # Those of one model are ours to tell.
    assert (await stub.ModelStatistics(pb.ModelStatisticsRequest(name=MODEL))).model_stats


async def test_what_is_not_here_is_unimplemented(front: FrontEnd) -> None:
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = front.channel.unary_unary(
        "/inference.GRPCInferenceService/SystemSharedMemoryStatus"
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(b"", timeout=LIMIT_S)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
