"""Health check of the server's container: exit code 0 if it takes requests.

Runs inside the image, next to the server, and asks at SERVER_HEALTH_ADDRESS, where
neither TLS nor a key is wanted; without that at the port of the calls.
"""

import os
import sys
from typing import Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

TIMEOUT_S: Final = 3
PORT: Final = ":50051"


def main() -> int:
    """Ask the server of this container; return the exit code."""
    address = os.environ.get("SERVER_HEALTH_ADDRESS") or os.environ.get("SERVER_ADDRESS", PORT)
    # What listens at all addresses of the container does so at this one.
    target = f"127.0.0.1:{address.rpartition(':')[2]}"
    # No proxy of the environment: it is in this container.
    options = [("grpc.enable_http_proxy", 0)]
    request = health_pb2.HealthCheckRequest(service="readiness")
    try:
        with grpc.insecure_channel(target, options) as channel:
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=TIMEOUT_S)
    except grpc.RpcError as error:
        print(error.code())
        return 1
    print(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
    return 0 if answer.status == health_pb2.HealthCheckResponse.SERVING else 1


if __name__ == "__main__":
    sys.exit(main())
