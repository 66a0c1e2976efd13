"""What operators may rely on in `prediction.v1.AdminService`."""

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import grpc
import pytest
from google.longrunning import operations_pb2

from despacho.job.v1.job_pb2 import Answer, Failure, Job, Reply
from dispatch import errors
from prediction.v1 import admin_pb2 as pb
from prediction.v1 import prediction_pb2
from prediction.v1.admin_pb2_grpc import AdminServiceStub
from server.call_record import ANONYMOUS
from tests.front_end import LIMIT_S, MODEL, FrontEnd, front_end
from tests.stack import details_of, reason_of

if TYPE_CHECKING:
    from prediction.v1.admin_pb2_grpc import AdminServiceAsyncStub

IMAGE = b"\x00\xff poison"


@pytest.fixture
async def front() -> AsyncIterator[FrontEnd]:
    async with front_end() as running:
        yield running


@pytest.fixture
async def stub(front: FrontEnd) -> "AdminServiceAsyncStub":
    return AdminServiceStub(front.channel)


def name_of(letter_id: str, model: str = MODEL) -> str:
    return f"models/{model}/deadLetters/{letter_id}"


def add(front: FrontEnd, count: int) -> list[str]:
    """Set images aside; return the names of their letters."""
    return [
        name_of(
            front.letters.add(
                number,
                job=Job(request_id=f"call-{number}", model=MODEL, top_k=3, include_scores=True),
                image=IMAGE,
            )
        )
        for number in range(count)
    ]


def field_of(error: grpc.aio.AioRpcError) -> str:
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    field: str = details_of(error)["BadRequest"].field_violations[0].field
    return field


async def test_letters_are_listed_oldest_first_and_without_images(
    front: FrontEnd, stub: "AdminServiceAsyncStub"
) -> None:
    names = add(front, 3)
    page = await stub.ListDeadLetters(pb.ListDeadLettersRequest(), timeout=LIMIT_S)
    assert [letter.name for letter in page.dead_letters] == names
    assert page.next_page_token == ""
    letter = page.dead_letters[1]
    assert letter.request_id == "call-1"
    assert (letter.deliveries, letter.reason, letter.top_k) == (2, "JOB_POISONED", 3)
    assert letter.create_time.ToMilliseconds() == 1_700_000_000_001
    assert letter.size_bytes == len(IMAGE) + 300
    assert letter.image == b""


async def test_letters_come_in_pages(front: FrontEnd, stub: "AdminServiceAsyncStub") -> None:
    names = add(front, 5)
    request = pb.ListDeadLettersRequest(model=MODEL, page_size=2)
    seen, sizes = [], []
    while True:
        page = await stub.ListDeadLetters(request, timeout=LIMIT_S)
        seen += [letter.name for letter in page.dead_letters]
        sizes.append(len(page.dead_letters))
        request.page_token = page.next_page_token
        if not page.next_page_token:
            break
    assert seen == names
    assert sizes == [2, 2, 1]


@pytest.mark.parametrize(("size", "count"), [(0, 50), (1000, 1000), (5000, 1000)])
async def test_a_page_has_a_default_and_a_largest_size(
    front: FrontEnd, stub: "AdminServiceAsyncStub", size: int, count: int
) -> None:
    add(front, 1001)
    request = pb.ListDeadLettersRequest(page_size=size)
    page = await stub.ListDeadLetters(request, timeout=LIMIT_S)
    assert len(page.dead_letters) == count


async def test_a_negative_page_size_is_refused(stub: "AdminServiceAsyncStub") -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ListDeadLetters(pb.ListDeadLettersRequest(page_size=-1), timeout=LIMIT_S)
    assert field_of(caught.value) == "page_size"


@pytest.mark.parametrize("token", ["?", "MTIz", "MC0wLTA=", "LS0t", "\u00fc"])
async def test_a_broken_page_token_is_refused(stub: "AdminServiceAsyncStub", token: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ListDeadLetters(pb.ListDeadLettersRequest(page_token=token), timeout=LIMIT_S)
    assert field_of(caught.value) == "page_token"


async def test_letters_of_an_unknown_model_are_not_found(stub: "AdminServiceAsyncStub") -> None:
    for call in (
        stub.ListDeadLetters(pb.ListDeadLettersRequest(model="other"), timeout=LIMIT_S),
        stub.GetDeadLetter(pb.GetDeadLetterRequest(name=name_of("1-0", "other")), timeout=LIMIT_S),
        stub.PurgeDeadLetters(pb.PurgeDeadLettersRequest(model="other", all=True), timeout=LIMIT_S),
        stub.ForgetModel(pb.ForgetModelRequest(name="other"), timeout=LIMIT_S),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        assert reason_of(caught.value) == "MODEL_NOT_FOUND"


async def test_one_letter_comes_with_its_image(
    front: FrontEnd, stub: "AdminServiceAsyncStub"
) -> None:
    (name,) = add(front, 1)
    found = await stub.GetDeadLetter(pb.GetDeadLetterRequest(name=name), timeout=LIMIT_S)
    assert found.dead_letter.name == name
    assert found.dead_letter.image == IMAGE


async def test_a_letter_with_the_largest_image_can_be_fetched() -> None:
    unlimited = (("grpc.max_receive_message_length", -1),)
    async with front_end(channel_options=unlimited) as front:
        image = bytes(16 * 1024 * 1024)
        name = name_of(front.letters.add(1, job=Job(model=MODEL), image=image))
        request = pb.GetDeadLetterRequest(name=name)
        found = await AdminServiceStub(front.channel).GetDeadLetter(request, timeout=LIMIT_S)
        assert found.dead_letter.image == image


async def test_a_letter_that_is_not_there_is_not_found(
    front: FrontEnd, stub: "AdminServiceAsyncStub"
) -> None:
    for call in (
        stub.GetDeadLetter(pb.GetDeadLetterRequest(name=name_of("1-0")), timeout=LIMIT_S),
        stub.ReplayDeadLetter(pb.ReplayDeadLetterRequest(name=name_of("1-0")), timeout=LIMIT_S),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert reason_of(caught.value) == "DEAD_LETTER_NOT_FOUND"
        assert details_of(caught.value)["ResourceInfo"].resource_name == name_of("1-0")
    assert not front.operations.submitted


@pytest.mark.parametrize("name", ["", "1-0", f"models/{MODEL}/operations/1-0", name_of("1-0/x")])
async def test_what_is_no_name_of_a_letter_is_refused(
    stub: "AdminServiceAsyncStub", name: str
) -> None:
    for call in (
        stub.GetDeadLetter(pb.GetDeadLetterRequest(name=name), timeout=LIMIT_S),
        stub.ReplayDeadLetter(pb.ReplayDeadLetterRequest(name=name), timeout=LIMIT_S),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert field_of(caught.value) == "name"


async def test_a_replay_submits_what_was_asked_for_and_removes_the_letter(
    front: FrontEnd, stub: "AdminServiceAsyncStub"
) -> None:
    (name,) = add(front, 1)
    operation = await stub.ReplayDeadLetter(pb.ReplayDeadLetterRequest(name=name), timeout=LIMIT_S)
    assert isinstance(operation, operations_pb2.Operation)
    (submission,) = front.operations.submitted
    new = submission.new
    assert operation.name == f"models/{MODEL}/operations/{new.key.id}"
    assert new.key.caller == ANONYMOUS
    assert new.image == IMAGE
    assert (new.job.model, new.job.top_k, new.job.include_scores) == (MODEL, 3, True)
    metadata = prediction_pb2.PredictionMetadata()
    assert operation.metadata.Unpack(metadata)
    assert metadata.state == prediction_pb2.PREDICTION_STATE_QUEUED
    assert not front.letters.kept


async def test_a_replay_whose_letter_was_not_removed_finds_the_same_operation(
    front: FrontEnd, stub: "AdminServiceAsyncStub"
) -> None:
    name, other = add(front, 2)
    letters = dict(front.letters.kept)
    request = pb.ReplayDeadLetterRequest(name=name)
    first = await stub.ReplayDeadLetter(request, timeout=LIMIT_S)
    front.letters.kept = letters  # as if the server had died in between
    assert (await stub.ReplayDeadLetter(request, timeout=LIMIT_S)).name == first.name
    request.name = other
    assert (await stub.ReplayDeadLetter(request, timeout=LIMIT_S)).name != first.name


@pytest.mark.parametrize("is_well", [False, True])
async def test_a_replay_that_finds_an_end_removes_the_letter_only_if_it_ended_well(
    front: FrontEnd, stub: "AdminServiceAsyncStub", *, is_well: bool
) -> None:
    (name,) = add(front, 1)
    letters = dict(front.letters.kept)
    request = pb.ReplayDeadLetterRequest(name=name)
    await stub.ReplayDeadLetter(request, timeout=LIMIT_S)
    front.letters.kept = dict(letters)  # as if the server had died in between
    failure = Failure(reason="INFERENCE_FAILED", message="again")
    ((key, _),) = front.operations.kept.items()
    front.operations.end(key, Reply(answer=Answer()) if is_well else Reply(failure=failure))
    assert (await stub.ReplayDeadLetter(request, timeout=LIMIT_S)).done
    assert front.letters.kept == ({} if is_well else letters)


async def test_a_replay_that_is_refused_leaves_the_letter(
    front: FrontEnd, stub: "AdminServiceAsyncStub"
) -> None:
    (name,) = add(front, 1)
    front.operations.failure = errors.QueueFull("model:m/operations", "full")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ReplayDeadLetter(pb.ReplayDeadLetterRequest(name=name), timeout=LIMIT_S)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert len(front.letters.kept) == 1


async def test_letters_are_purged_by_name(front: FrontEnd, stub: "AdminServiceAsyncStub") -> None:
    first, second, third = add(front, 3)
    request = pb.PurgeDeadLettersRequest(names=[first, third, third, name_of("1-0")])
    response = await stub.PurgeDeadLetters(request, timeout=LIMIT_S)
    assert response.purged_count == 2
    assert [name_of(letter_id) for letter_id in front.letters.kept] == [second]


async def test_all_letters_are_purged(front: FrontEnd, stub: "AdminServiceAsyncStub") -> None:
    add(front, 3)
    request = pb.PurgeDeadLettersRequest(model=MODEL, all=True)
    assert (await stub.PurgeDeadLetters(request, timeout=LIMIT_S)).purged_count == 3
    assert not front.letters.kept
    assert (await stub.PurgeDeadLetters(request, timeout=LIMIT_S)).purged_count == 0


@pytest.mark.parametrize(
    "request_",
    [
        pb.PurgeDeadLettersRequest(),
        pb.PurgeDeadLettersRequest(names=[name_of("1700000000000-0")], all=True),
        pb.PurgeDeadLettersRequest(names=[name_of("1700000000000-0"), name_of("1-0", "other")]),
        pb.PurgeDeadLettersRequest(names=["1700000000000-0"]),
        pb.PurgeDeadLettersRequest(names=[name_of("1700000000000-0")] * 1001),
    ],
    ids=["neither", "both", "other model", "no name", "too many"],
)
async def test_a_purge_that_is_not_clear_deletes_nothing(
    front: FrontEnd, stub: "AdminServiceAsyncStub", request_: pb.PurgeDeadLettersRequest
) -> None:
    add(front, 1)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.PurgeDeadLetters(request_, timeout=LIMIT_S)
    assert field_of(caught.value) == "names"
    assert len(front.letters.kept) == 1


async def test_a_model_that_is_served_is_not_forgotten(
    front: FrontEnd, stub: "AdminServiceAsyncStub"
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ForgetModel(pb.ForgetModelRequest(name=MODEL), timeout=LIMIT_S)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert reason_of(caught.value) == "MODEL_IN_USE"
    assert MODEL in front.fleet.views


async def test_a_forgotten_model_is_not_listed_any_more(
    front: FrontEnd, stub: "AdminServiceAsyncStub"
) -> None:
    front.fleet.set_workers(ready=0)
    await stub.ForgetModel(pb.ForgetModelRequest(name=MODEL), timeout=LIMIT_S)
    models = await front.stub.ListModels(prediction_pb2.ListModelsRequest(), timeout=LIMIT_S)
    assert not models.models


async def test_forgetting_needs_a_name(stub: "AdminServiceAsyncStub") -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ForgetModel(pb.ForgetModelRequest(), timeout=LIMIT_S)
    assert field_of(caught.value) == "name"


@pytest.mark.parametrize("name", ["x" * 1_000_000, "a b", "{m}", "A", "\x00", "é"])
async def test_a_name_that_no_model_can_have_is_not_asked_for(
    front: FrontEnd, stub: "AdminServiceAsyncStub", name: str
) -> None:
    front.letters.failures = [errors.BrokerUnavailable("was asked")]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ForgetModel(pb.ForgetModelRequest(name=name), timeout=LIMIT_S)
    assert reason_of(caught.value) == "MODEL_NOT_FOUND"


async def test_a_lost_confirmation_is_asked_for_again(
    front: FrontEnd, stub: "AdminServiceAsyncStub"
) -> None:
    (name,) = add(front, 1)
    front.letters.failures = [errors.OutcomeUnknown(""), errors.BrokerUnavailable("")]
    found = await stub.GetDeadLetter(pb.GetDeadLetterRequest(name=name), timeout=LIMIT_S)
    assert found.dead_letter.image == IMAGE
    front.fleet.set_workers(ready=0)
    front.letters.failures = [errors.OutcomeUnknown("")]
    await stub.ForgetModel(pb.ForgetModelRequest(name=MODEL), timeout=LIMIT_S)


async def test_what_is_never_confirmed_is_unavailable_before_the_deadline(
    front: FrontEnd, stub: "AdminServiceAsyncStub"
) -> None:
    front.letters.failures = [errors.OutcomeUnknown("") for _ in range(1000)]
    reason = ""
    async with asyncio.timeout(LIMIT_S):
        while not reason:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.ListDeadLetters(pb.ListDeadLettersRequest(), timeout=0.5)
            # None from the timer of the caller, which is 25 ms behind: of a machine that stood
            # still in these it may be the first, and that is no fault of the front-end.
            reason = reason_of(caught.value)
    assert reason == "BROKER_UNAVAILABLE"


async def test_without_a_broker_every_call_is_refused_at_once(
    front: FrontEnd, stub: "AdminServiceAsyncStub"
) -> None:
    (name,) = add(front, 1)
    front.link.lost()
    for call in (
        stub.ListDeadLetters(pb.ListDeadLettersRequest(), timeout=LIMIT_S),
        stub.GetDeadLetter(pb.GetDeadLetterRequest(name=name), timeout=LIMIT_S),
        stub.ReplayDeadLetter(pb.ReplayDeadLetterRequest(name=name), timeout=LIMIT_S),
        stub.PurgeDeadLetters(pb.PurgeDeadLettersRequest(all=True), timeout=LIMIT_S),
        stub.ForgetModel(pb.ForgetModelRequest(name=MODEL), timeout=LIMIT_S),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert reason_of(caught.value) == "BROKER_UNAVAILABLE"
    assert len(front.letters.kept) == 1
