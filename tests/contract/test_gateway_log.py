"""What the gateway writes of each request."""

import socket
import time

import structlog
from opentelemetry.sdk.trace import TracerProvider
from werkzeug.datastructures import Headers

from gateway.caller import caller_of
from gateway.settings import GatewaySettings
from tests.fake_front_end import FakeFrontEnd
from tests.gateway import LIMIT_S, gateway

TRACE_ID = "4b" * 16
TRACEPARENT = f"00-{TRACE_ID}-{'7a' * 8}-01"


def test_the_line_of_a_request_has_the_ids_that_the_other_services_write() -> None:
    with FakeFrontEnd() as server, gateway(server.target) as web:
        with structlog.testing.capture_logs() as lines:
            path = "/v1/models/default:predict"
            web.call("POST", path, b"cat", traceparent=TRACEPARENT, X_Request_Id="mine")
            web.call("POST", f"{path}?topK=many", b"cat", traceparent="nonsense")
            web.call("GET", "/v1/models")
        assert {line["event"] for line in lines} == {"request"}
        good, bad, models = lines
        assert (good["request_id"], good["trace_id"]) == ("mine", TRACE_ID)
        assert (good["model"], good["status"], good["reason"]) == ("default", 200, "")
        assert (bad["trace_id"], bad["status"], bad["reason"]) == ("", 400, "INVALID_ARGUMENT")
        assert models["model"] == ""


def test_a_gateway_that_is_traced_itself_passes_on_its_own_span() -> None:
    request = Headers({"traceparent": TRACEPARENT}), "id", GatewaySettings(), time.monotonic()
    assert dict(caller_of(*request).metadata)["traceparent"] == TRACEPARENT
    with TracerProvider().get_tracer("gateway").start_as_current_span("request") as span:
        passed_on = dict(caller_of(*request).metadata)["traceparent"]
    assert f"{span.get_span_context().span_id:016x}" in passed_on


def test_a_head_that_does_not_end_leaves_a_line_and_silence_leaves_none() -> None:
    with FakeFrontEnd() as server, gateway(server.target, client_timeout_s=0.3) as web:
        host, port = web.address.rsplit(":", 1)
        with structlog.testing.capture_logs() as lines:
            for text in (b"", b"GET / HT"):
                with socket.create_connection((host, int(port)), LIMIT_S) as caller:
                    caller.sendall(text)
                    while caller.recv(4096):
                        pass
    [line] = lines
    assert (line["status"], line["log_level"]) == (408, "info")
