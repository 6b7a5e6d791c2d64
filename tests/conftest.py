"""Fixtures for every test, and three guards that fail a test which leaves something behind.

- Processes and sockets: no child process, listening TCP or bound UDP socket may be left by a test and
  its function-scoped fixtures. Session and module fixtures are set up before the guard looks, so what
  they hold is theirs; a session-wide daemon started on first use calls `tests.support.leaks.keep(pid)`.
- Tasks: no asyncio task may outlive an `async def` test and its fixtures.
- Tracebacks: an exception in the log (asyncio's "never retrieved" included) fails the test unless it is
  marked `allow_tracebacks`, which a test of exactly that behaviour may use.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import logging
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from tests.support import leaks, ports


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "allow_tracebacks: the test provokes exceptions that are logged")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("longest") is None)


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Call it for a port that is free for TCP and UDP on 127.0.0.1."""
    return ports.free_port


@pytest.fixture
def free_udp_range() -> Callable[[int], tuple[int, int]]:
    """Call it with a count for (first, last) of that many adjoining free UDP ports."""
    return ports.free_udp_range


class _TracebackTrap(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.caught: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[0] is not None:
            what = record.exc_info[1]
            self.caught.append(f"{record.name}: {record.getMessage()} [{type(what).__name__}: {what}]")


@pytest.fixture(autouse=True)
def _no_leftovers(request: pytest.FixtureRequest) -> Iterator[None]:
    """Processes, sockets and tracebacks; set up first, so it looks last."""
    trap = _TracebackTrap()
    logging.getLogger().addHandler(trap)
    before = leaks.holdings()
    yield
    gc.collect(1)
    logging.getLogger().removeHandler(trap)
    left = leaks.settle(before)
    if left:
        leaks.end_children(before)
        pytest.fail("left behind: " + "; ".join(left), pytrace=False)
    if trap.caught and request.node.get_closest_marker("allow_tracebacks") is None:
        pytest.fail("exceptions in the log: " + "; ".join(trap.caught), pytrace=False)


@pytest.fixture(autouse=True)
def _no_tasks_left(_no_leftovers: None, request: pytest.FixtureRequest) -> None:
    """Bring the task guard in for coroutine tests only: others have no loop to look at."""
    function = getattr(request, "function", None)
    if function is not None and inspect.iscoroutinefunction(inspect.unwrap(function)):
        request.getfixturevalue("_task_guard")


@pytest.fixture
async def _task_guard() -> AsyncIterator[None]:
    yield
    mine = asyncio.current_task()
    for _ in range(3):
        await asyncio.sleep(0)
    left = {task for task in asyncio.all_tasks() if task is not mine}
    if left:
        _, left = await asyncio.wait(left, timeout=leaks.PATIENCE)
    if left:
        pytest.fail("tasks left behind: " + "; ".join(sorted(map(repr, left))), pytrace=False)
