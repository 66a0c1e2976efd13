"""Connections that are encrypted, and certificates of callers."""

from pathlib import Path
from typing import Literal

import grpc
import pytest

from dispatch import errors
from prediction.v1 import prediction_pb2 as pb
from prediction.v1.prediction_pb2_grpc import PredictionServiceStub
from tests.credentials import Authority, Keys, bearer, channel_credentials
from tests.front_end import LIMIT_S, front_end
from tests.stack import reason_of, refusal

IMAGE = pb.PredictRequest(image=b"photo")


async def works(address: str, authority: Authority) -> bool:
    """Return whether a client that trusts `authority` gets an answer on a new connection."""
    # A subchannel of the same arguments would be used again.
    own = [("grpc.use_local_subchannel_pool", 1)]
    credentials = channel_credentials(authority)
    async with grpc.aio.secure_channel(address, credentials, options=own) as channel:
        try:
            await PredictionServiceStub(channel).Predict(IMAGE, timeout=LIMIT_S)
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.UNAVAILABLE  # noqa: PT017
            return False
        return True


async def test_calls_over_tls_are_answered(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = authority.issue("server", "localhost", "127.0.0.1")
    async with (
        front_end(tls_cert_file=str(server.cert_file), tls_key_file=str(server.key_file)) as e,
        grpc.aio.secure_channel(e.address, channel_credentials(authority)) as channel,
    ):
        assert (await PredictionServiceStub(channel).Predict(IMAGE)).predictions
        error = await refusal(e.stub.Predict(IMAGE))  # not encrypted
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert len(e.relay.submitted) == 1


async def test_only_callers_with_a_certificate_connect(tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "stranger")
    server = authority.issue("server", "localhost", "127.0.0.1")
    camera = authority.issue("camera", "camera-1.example.org", subject="camera-1")
    forged = stranger.issue("forged", "camera-1.example.org", subject="camera-1")
    async with front_end(
        tls_cert_file=str(server.cert_file),
        tls_key_file=str(server.key_file),
        tls_client_ca_file=str(authority.cert_file),
    ) as end:
        for identity, is_known in ((camera, True), (forged, False), (None, False)):
            credentials = channel_credentials(authority, identity)
            async with grpc.aio.secure_channel(end.address, credentials) as channel:
                call = PredictionServiceStub(channel).SubmitPrediction(
                    pb.SubmitPredictionRequest(image=b"x")
                )
                if is_known:
                    await call
                else:
                    assert (await refusal(call)).code() is grpc.StatusCode.UNAVAILABLE
        [submitted] = end.operations.submitted
        assert submitted.new.key.caller.startswith("CN=camera-1,")


async def test_a_certificate_does_not_take_the_place_of_a_key(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = authority.issue("server", "localhost", "127.0.0.1")
    camera = authority.issue("camera", "camera-1.example.org", subject="camera-1")
    keys = Keys(tmp_path / "keys.toml")
    key = keys.add("camera-1", "operations")
    async with (
        front_end(
            tls_cert_file=str(server.cert_file),
            tls_key_file=str(server.key_file),
            tls_client_ca_file=str(authority.cert_file),
            api_keys_file=str(keys.path),
        ) as end,
        grpc.aio.secure_channel(end.address, channel_credentials(authority, camera)) as channel,
    ):
        stub = PredictionServiceStub(channel)
        request = pb.SubmitPredictionRequest(image=b"x")
        assert reason_of(await refusal(stub.SubmitPrediction(request))) == "CREDENTIALS_MISSING"
        await stub.SubmitPrediction(request, metadata=bearer(key))
        assert [each.new.key.caller for each in end.operations.submitted] == ["camera-1"]


async def test_a_flood_leaves_no_trace_once_it_is_over(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = authority.issue("server", "localhost", "127.0.0.1")
    camera = authority.issue("camera", "camera-1.example.org", subject="camera-1")
    async with (
        front_end(
            tls_cert_file=str(server.cert_file),
            tls_key_file=str(server.key_file),
            tls_client_ca_file=str(authority.cert_file),
        ) as end,
        grpc.aio.secure_channel(end.address, channel_credentials(authority, camera)) as channel,
    ):
        stub = PredictionServiceStub(channel)
        # The first call of a method, for which the guard makes its handler.
        end.relay.flooded = errors.QueueFull("model:m/jobs", "full", retry_after_s=0.25)
        assert reason_of(await refusal(stub.Predict(IMAGE))) == "QUEUE_FULL"
        end.relay.flooded = None
        assert (await stub.Predict(IMAGE)).predictions


async def test_a_new_certificate_is_used_without_a_restart(tmp_path: Path) -> None:
    old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
    server = old.issue("server", "localhost", "127.0.0.1")
    async with front_end(
        tls_cert_file=str(server.cert_file), tls_key_file=str(server.key_file)
    ) as end:
        assert await works(end.address, old)
        assert not await works(end.address, new)
        server.replace_with(new.issue("next", "localhost", "127.0.0.1"))
        assert await works(end.address, new)
        assert not await works(end.address, old)


@pytest.mark.parametrize("broken", ["cert_file", "key_file"])
async def test_a_broken_new_certificate_leaves_the_old_one_in_use(
    tmp_path: Path, broken: Literal["cert_file", "key_file"]
) -> None:
    authority = Authority(tmp_path)
    server = authority.issue("server", "localhost", "127.0.0.1")
    async with front_end(
        tls_cert_file=str(server.cert_file), tls_key_file=str(server.key_file)
    ) as end:
        server.spoil(broken)
        assert await works(end.address, authority)
        server.lose(broken)
        assert await works(end.address, authority)
        server.replace_with(Authority(tmp_path, "new").issue("next", "localhost", "127.0.0.1"))
        assert not await works(end.address, authority)
