"""Runs the functions of blocks and resolvers side by side within one deadline: each of them may fail or hang."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import Any, NamedTuple, TypeVar

logger = logging.getLogger(__name__)
K = TypeVar("K", bound=Hashable)


class Outcome(NamedTuple):
    """What a function gave, or what is wrong with it, as the end of a sentence."""

    value: Any = None
    problem: str | None = None


async def run_within(work: Mapping[K, Callable[[], Awaitable[Any]]], deadline: float) -> dict[K, Outcome]:
    """Await every function for at most `deadline` seconds; what is late is cancelled and not waited for."""
    tasks = {key: asyncio.create_task(_called(function)) for key, function in work.items()}
    if not tasks:
        return {}
    try:
        await asyncio.wait(tasks.values(), timeout=deadline)
        return {key: _outcome(key, task, deadline) for key, task in tasks.items()}
    finally:
        for task in tasks.values():
            if not task.done():
                task.add_done_callback(_seen)
                task.cancel()


async def _called(function: Callable[[], Awaitable[Any]]) -> Any:
    return await function()


def _outcome(key: object, task: "asyncio.Task[Any]", deadline: float) -> Outcome:
    if not task.done():
        return Outcome(problem=f"took longer than {deadline:g} s")
    if task.cancelled():
        return Outcome(problem="was cancelled")
    if (error := task.exception()) is not None:
        logger.warning("prompt function failed", extra={"block": str(key)}, exc_info=error)
        return Outcome(problem=f"failed ({type(error).__name__})")
    return Outcome(task.result())


def _seen(task: "asyncio.Future[Any]") -> None:
    if not task.cancelled():
        task.exception()
