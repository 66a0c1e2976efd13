"""What this process did over the Open Inference Protocol since it started."""

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from despacho.job.v1 import job_pb2
from inference import grpc_predict_v2_pb2 as pb


@dataclass(slots=True)
class Total:
    """How often something was done, and how long it took in all."""

    count: float = 0
    seconds: float = 0

    def add(self, seconds: float, count: float = 1) -> None:
        """Count something; a wait between two machines may come out below nothing."""
        self.count += count
        self.seconds += max(0.0, seconds)

    def to_message(self) -> pb.StatisticDuration:
        """Return it in whole numbers."""
        return pb.StatisticDuration(count=round(self.count), ns=round(self.seconds * 1e9))


@dataclass(slots=True)
class ModelTotals:
    """What one version of a model did."""

    success: Total = field(default_factory=Total)
    fail: Total = field(default_factory=Total)
    queue: Total = field(default_factory=Total)
    decode: Total = field(default_factory=Total)
    inference: Total = field(default_factory=Total)
    by_batch_size: defaultdict[int, Total] = field(default_factory=lambda: defaultdict(Total))
    last_ms: int = 0

    def add(self, answer: job_pb2.Answer) -> None:
        """Count one image."""
        self.queue.add(answer.queue_us / 1e6)
        self.decode.add(answer.decode_us / 1e6)
        self.inference.add(answer.inference_us / 1e6)
        # The batch may be shared with callers who are not seen here.
        share = 1 / max(1, answer.batch_size)
        self.by_batch_size[answer.batch_size].add(answer.inference_us / 1e6 * share, share)
        self.last_ms = int(time.time() * 1000)

    def to_message(self, model: str, version: str) -> pb.ModelStatistics:
        """Return the standard's view of it."""
        return pb.ModelStatistics(
            name=model,
            version=version,
            last_inference=self.last_ms,
            inference_count=round(self.inference.count),
            execution_count=round(sum(each.count for each in self.by_batch_size.values())),
            inference_stats=pb.InferStatistics(
                success=self.success.to_message(),
                fail=self.fail.to_message(),
                queue=self.queue.to_message(),
                compute_input=self.decode.to_message(),
                compute_infer=self.inference.to_message(),
                # Not measured, but Triton's perf_analyzer ends if it is not as many.
                compute_output=pb.StatisticDuration(count=round(self.inference.count)),
            ),
            batch_stats=[
                pb.InferBatchStatistics(batch_size=size, compute_infer=total.to_message())
                for size, total in sorted(self.by_batch_size.items())
            ],
        )


class Statistics:
    """Counts requests and their images, by model and version."""

    def __init__(self) -> None:
        # As many as were ever served: a request cannot make one up.
        self._totals: defaultdict[tuple[str, str], ModelTotals] = defaultdict(ModelTotals)

    @contextmanager
    def failures(self, model: str, version: str) -> Iterator[None]:
        """Count an exception raised inside as a failed request; giving up is none."""
        started_s = time.monotonic()
        try:
            yield
        except Exception:
            self._totals[model, version].fail.add(time.monotonic() - started_s)
            raise

    def answered(self, model: str, replies: Sequence[job_pb2.Reply], *, total_s: float) -> None:
        """Count an answered request.

        Args:
            model: name of the model.
            replies: one for each image.
            total_s: from the arrival of the request until now, seconds.
        """
        for reply in replies:
            self._totals[model, reply.answer.model_version].add(reply.answer)
        version = replies[0].answer.model_version
        self._totals[model, version].success.add(total_s)

    def of(self, model: str, versions: Sequence[str]) -> list[pb.ModelStatistics]:
        """Return what was counted of a model.

        Args:
            model: name of the model.
            versions: which are told even if nothing was counted; others are told if
                something was.
        """
        counted = {version for name, version in self._totals if name == model}
        return [
            self._totals.get((model, version), ModelTotals()).to_message(model, version)
            for version in sorted(counted.union(versions))
        ]
