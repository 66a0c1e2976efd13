"""Health check of the server's container: exit code 0 if it takes requests.

Runs inside the image, next to the server.
"""

import os
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

TIMEOUT_S = 3


def main() -> int:
    """Ask the server of this container; return the exit code."""
    port = os.environ.get("SERVER_ADDRESS", ":50051").rpartition(":")[2]
    request = health_pb2.HealthCheckRequest(service="readiness")
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=TIMEOUT_S)
    except grpc.RpcError as error:
        print(error.code())
        return 1
    print(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
    return 0 if answer.status == health_pb2.HealthCheckResponse.SERVING else 1


if __name__ == "__main__":
    sys.exit(main())
