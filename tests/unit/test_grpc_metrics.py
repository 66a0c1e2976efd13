"""Calls are counted by method and status, and callers cannot make series up."""

from server.grpc_metrics import CallCounts
from telemetry.metrics_catalogue import CALL_EDGES_S

PREDICT = "/prediction.v1.PredictionService/Predict"
LABELS = ("UNARY", "prediction.v1.PredictionService", "Predict")


def test_a_call_is_counted_when_it_begins_and_when_it_ends() -> None:
    calls = CallCounts()
    calls.began(PREDICT)
    assert dict(calls.started())[LABELS] == (1,)
    assert dict(calls.handled())[*LABELS, "OK"] == (0,)
    calls.ended(PREDICT, "OK", 0.003)
    calls.ended(PREDICT, "UNAVAILABLE", 100)
    handled = dict(calls.handled())
    assert handled[*LABELS, "OK"] == handled[*LABELS, "UNAVAILABLE"] == (1,)
    *counts, seconds = dict(calls.durations())[LABELS]
    assert counts[CALL_EDGES_S.index(0.005)] == counts[-1] == 1
    assert sum(counts) == 2
    assert seconds == 100.003


def test_every_method_is_there_from_the_start_with_its_kind() -> None:
    kinds = {labels[1:]: labels[0] for labels, _ in CallCounts().started()}
    service = "prediction.v1.PredictionService"
    assert kinds[service, "Predict"] == "UNARY"
    assert kinds[service, "PredictBatch"] == "SERVER_STREAMING"
    assert kinds[service, "PredictUpload"] == "CLIENT_STREAMING"
    assert kinds[service, "PredictStream"] == "BIDI_STREAMING"
    assert ("grpc.health.v1.Health", "Check") in kinds
    assert ("google.longrunning.Operations", "WaitOperation") in kinds
    assert ("inference.GRPCInferenceService", "ModelInfer") in kinds


def test_methods_that_are_not_there_are_one_series() -> None:
    calls = CallCounts()
    before = len(list(calls.started()))
    for number in range(100):
        calls.began(f"/made.up/{number}")
        calls.ended(f"/made.up/{number}", "UNIMPLEMENTED", 0.001)
    assert len(list(calls.started())) == before
    assert dict(calls.started())["UNARY", "unknown", "unknown"] == (100,)
    assert dict(calls.handled())["UNARY", "unknown", "unknown", "UNIMPLEMENTED"] == (100,)
