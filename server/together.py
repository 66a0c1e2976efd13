"""Several pieces of work at once, of which all must succeed."""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar, cast

T = TypeVar("T")


async def all_of(works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Return the result of each; if one fails, cancel the others.

    Not a group of tasks of Python 3.11: that forgets that it was cancelled if one fails in the same
    moment, and keeps what was raised in a ring, with all that the works had in hand.

    Raises:
        Exception: what the first of those raised that have failed by themselves.
    """
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        outcomes = await _ended(tasks)
        # What is raised knows this frame. If this frame knew it, too, that would be a ring.
        tasks.clear()
    raised = [each for each in outcomes if isinstance(each, BaseException)]
    if raised:
        outcomes.clear()
        # Those that were cancelled for another come last.
        raised.sort(key=lambda each: isinstance(each, asyncio.CancelledError))
        del raised[1:]
        raise raised.pop()
    return cast("list[T]", outcomes)


async def _ended(tasks: Iterable["asyncio.Task[T]"]) -> list[T | BaseException]:
    """Cancel tasks, wait until they have ended, and return what each returned or raised."""
    tasks = tuple(tasks)
    for task in tasks:
        task.cancel()
    return await asyncio.gather(*tasks, return_exceptions=True)
