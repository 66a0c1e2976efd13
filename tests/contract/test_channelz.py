"""The service for whoever looks for a fault in connections."""

from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_channelz.v1 import channelz_pb2
from grpc_channelz.v1.channelz_pb2_grpc import ChannelzStub
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub

from prediction.v1 import prediction_pb2 as pb
from tests.credentials import Keys, bearer
from tests.front_end import LIMIT_S, FrontEnd, front_end
from tests.stack import reason_of

SERVICE = "grpc.channelz.v1.Channelz"
GET_SERVERS = channelz_pb2.GetServersRequest()


async def listed(front: FrontEnd) -> set[str]:
    requests = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    call = ServerReflectionStub(front.channel).ServerReflectionInfo(requests, timeout=LIMIT_S)
    [response] = [each async for each in call]
    return {service.name for service in response.list_services_response.service}


async def test_it_tells_of_the_server_its_calls_and_its_connections() -> None:
    async with front_end(channelz=True) as front:
        assert SERVICE in await listed(front)
        await front.stub.Predict(pb.PredictRequest(image=b"photo"), timeout=LIMIT_S)
        channelz = ChannelzStub(front.channel)
        servers = (await channelz.GetServers(GET_SERVERS, timeout=LIMIT_S)).server
        port = int(front.address.rpartition(":")[2])
        connections = [
            (socket.data.streams_started, server, socket)
            for server in servers
            for socket in await sockets_of(channelz, server.ref.server_id)
            if socket.local.tcpip_address.port == port
        ]
        # The port may have been another server's, to which its caller still tries to come back.
        _, server, connection = max(connections, key=lambda each: each[0])
        assert server.data.calls_started >= 1
        assert connection.data.streams_started >= 3
        assert connection.remote.tcpip_address.port


async def sockets_of(channelz: ChannelzStub, server_id: int) -> list[Any]:
    request = channelz_pb2.GetServerSocketsRequest(server_id=server_id)
    found = (await channelz.GetServerSockets(request, timeout=LIMIT_S)).socket_ref
    requests = [channelz_pb2.GetSocketRequest(socket_id=each.socket_id) for each in found]
    return [(await channelz.GetSocket(each, timeout=LIMIT_S)).socket for each in requests]


async def test_it_is_off_unless_a_setting_says_so() -> None:
    async with front_end() as front:
        assert SERVICE not in await listed(front)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ChannelzStub(front.channel).GetServers(GET_SERVERS, timeout=LIMIT_S)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_it_is_for_operators(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.toml")
    operator, caller = keys.add("operator", "admin"), keys.add("caller", "predict", "operations")
    async with front_end(channelz=True, api_keys_file=str(keys.path)) as front:
        channelz = ChannelzStub(front.channel)
        assert (await channelz.GetServers(GET_SERVERS, metadata=bearer(operator))).server
        for metadata, reason in (((), "CREDENTIALS_MISSING"), (bearer(caller), "SCOPE_MISSING")):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channelz.GetServers(GET_SERVERS, metadata=metadata, timeout=LIMIT_S)
            assert reason_of(caught.value) == reason
