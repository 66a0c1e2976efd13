"""What `ModelStatistics` counts."""

from dispatch import errors
from inference import grpc_predict_v2_pb2 as pb
from tests.front_end import MODEL, FrontEnd
from tests.inference_requests import answer_as, infer, raw, refusal, stub_of


async def statistics_of(front: FrontEnd) -> pb.ModelStatistics:
    request = pb.ModelStatisticsRequest(name=MODEL)
    [found] = (await stub_of(front).ModelStatistics(request)).model_stats
    return found


async def test_nothing_was_done_yet(front: FrontEnd) -> None:
    found = await statistics_of(front)
    assert (found.name, found.version) == (MODEL, "1.0")
    assert (found.inference_count, found.execution_count, found.last_inference) == (0, 0, 0)


async def test_requests_and_images_are_counted(front: FrontEnd) -> None:
    await infer(front, raw(*[b"a"] * 8))
    await infer(front, raw(*[b"a"] * 4))
    front.relay.failures = {b"bad": errors.InferenceFailed("raised")}
    await refusal(front, raw(b"bad"))
    await refusal(front, raw())
    found = await statistics_of(front)
    assert found.inference_count == 12
    # The fake worker says that each image was in a batch of 4.
    assert found.execution_count == 3
    assert found.last_inference > 1_700_000_000_000
    stats = found.inference_stats
    assert (stats.success.count, stats.fail.count) == (2, 1)
    assert stats.success.ns > 0
    assert (stats.queue.count, stats.queue.ns) == (12, 12 * 1_500_000)
    assert (stats.compute_input.count, stats.compute_input.ns) == (12, 12 * 2_000_000_000)
    assert (stats.compute_infer.count, stats.compute_infer.ns) == (12, 12 * 30_000)
    assert (stats.compute_output.count, stats.compute_output.ns) == (12, 0)
    [batch] = found.batch_stats
    assert batch.batch_size == 4
    assert (batch.compute_infer.count, batch.compute_infer.ns) == (3, 3 * 30_000)


async def test_all_models_and_versions_are_told_to_who_names_none(front: FrontEnd) -> None:
    await infer(front, raw(b"a"))
    answer_as(front, {b"a": ("2", 2)})
    await infer(front, raw(b"a"))
    found = (await stub_of(front).ModelStatistics(pb.ModelStatisticsRequest())).model_stats
    assert [(each.version, each.inference_count) for each in found] == [("1.0", 1), ("2", 1)]
