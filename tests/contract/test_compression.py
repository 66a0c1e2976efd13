"""Who compresses what, seen on the wire."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from client import AsyncClient
from prediction.v1 import prediction_pb2 as pb
from prediction.v1.prediction_pb2_grpc import PredictionServiceStub
from tests.front_end import LIMIT_S, FrontEnd, front_end
from tests.wire import Wire, wire_to

SIZE = 1024 * 1024
SMALL = SIZE // 20
"""More than any of these messages takes when it is compressed."""

IMAGE = pb.PredictRequest(image=bytes(SIZE))


@asynccontextmanager
async def listened_to(**settings: Any) -> AsyncIterator[tuple[FrontEnd, Wire]]:
    async with front_end(**settings) as front, wire_to(front.address) as wire:
        yield front, wire


async def test_a_compressed_request_is_understood() -> None:
    async with (
        listened_to() as (front, wire),
        grpc.aio.insecure_channel(wire.address) as channel,
    ):
        stub = PredictionServiceStub(channel)
        for algorithm in (grpc.Compression.Gzip, grpc.Compression.Deflate):
            wire.forget()
            await stub.Predict(IMAGE, compression=algorithm, timeout=LIMIT_S)
            assert wire.sent_bytes < SMALL
        assert [len(each.image) for each in front.relay.submitted] == [SIZE, SIZE]


async def test_our_client_does_not_compress_images() -> None:
    async with listened_to() as (_, wire), AsyncClient(wire.address) as client:
        await client.predict(bytes(SIZE))
        assert wire.sent_bytes > SIZE
        wire.forget()
        assert [o.unwrap() async for o in client.predict_stream([(1, bytes(SIZE))])]
        assert wire.sent_bytes > SIZE


@pytest.mark.parametrize("algorithm", ["none", "gzip", "deflate"])
async def test_answers_are_compressed_only_if_a_setting_says_so(algorithm: str) -> None:
    async with (
        listened_to(response_compression=algorithm) as (front, wire),
        grpc.aio.insecure_channel(wire.address) as channel,
    ):
        front.relay.scores = [0.0] * (SIZE // 4)
        stub = PredictionServiceStub(channel)
        request = pb.PredictRequest(image=b"photo", include_scores=True)
        # That the caller compresses says nothing of what it wants back.
        response = await stub.Predict(request, compression=grpc.Compression.Gzip, timeout=LIMIT_S)
        assert len(response.scores) == SIZE // 4
        assert (wire.answered_bytes < SMALL) is (algorithm != "none")


# The bits of algorithms that a caller announces: identity is 1, deflate 2, gzip 4.
@pytest.mark.parametrize(("known", "is_compressed"), [(1, False), (1 | 4, True), (1 | 2, True)])
@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
async def test_answers_are_compressed_only_with_what_their_caller_knows(
    algorithm: str, known: int, *, is_compressed: bool
) -> None:
    options = [("grpc.compression_enabled_algorithms_bitset", known)]
    async with (
        listened_to(response_compression=algorithm) as (front, wire),
        grpc.aio.insecure_channel(wire.address, options=options) as channel,
    ):
        front.relay.scores = [0.0] * (SIZE // 4)
        request = pb.PredictRequest(image=b"photo", include_scores=True)
        response = await PredictionServiceStub(channel).Predict(request, timeout=LIMIT_S)
        assert len(response.scores) == SIZE // 4
        assert (wire.answered_bytes < SMALL) is is_compressed


async def test_a_bomb_is_refused_before_it_is_anybodys() -> None:
    bomb = pb.PredictRequest(image=bytes(64 * SIZE))
    options = [("grpc.max_send_message_length", -1)]
    async with (
        listened_to() as (front, wire),
        grpc.aio.insecure_channel(wire.address, options=options) as channel,
    ):
        stub = PredictionServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Predict(bomb, compression=grpc.Compression.Gzip, timeout=LIMIT_S)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        # Its size on the wire was no reason to refuse it.
        assert wire.sent_bytes < SIZE
        assert front.relay.submitted == []
        await stub.Predict(pb.PredictRequest(image=b"photo"), timeout=LIMIT_S)
