"""How long counting takes: `python -m tests.observability.cost`."""

import timeit

from server.grpc_metrics import CallCounts
from telemetry.metrics_instruments import Histogram

PREDICT = "/prediction.v1.PredictionService/Predict"
RUNS = 200_000
ROUNDS = 7


def main() -> None:
    """Print the best of some rounds."""
    calls = CallCounts()
    histogram = Histogram("a_seconds", "A duration.", ("model",), edges=range(1, 16))

    def call() -> None:
        calls.began(PREDICT)
        calls.ended(PREDICT, "OK", 0.003)

    for name, count in (("a call", call), ("a value", lambda: histogram.observe(7, "model"))):
        best_s = min(timeit.repeat(count, number=RUNS, repeat=ROUNDS)) / RUNS
        print(f"{name}: {best_s * 1e6:.2f} us")  # noqa: T201 - for a person


if __name__ == "__main__":
    main()
