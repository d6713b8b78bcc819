"""What takes too long ends, by one timer for all."""

import asyncio

import pytest

from app.expiry import Deadline, Expiry

pytestmark = pytest.mark.any_engine


class Item:
    def __init__(self, name: str, log: list[str]) -> None:
        self.name = name
        self.log = log
        self.expired = asyncio.Event()

    def expire(self) -> None:
        self.log.append(self.name)
        self.expired.set()


async def test_what_is_not_stopped_expires_in_the_order_of_the_starts() -> None:
    expiry, log = Expiry(0.02), list[str]()
    one, two, three, four = (Item(name, log) for name in ("one", "two", "three", "four"))
    for item in (one, two, three):
        expiry.start(item)
    expiry.stop(two)
    expiry.start(one)  # anew
    await three.expired.wait()
    expiry.start(four)
    await four.expired.wait()

    assert log == ["three", "one", "four"]


async def test_a_block_over_its_deadline_times_out() -> None:
    with pytest.raises(TimeoutError), Deadline(Expiry(0.01)):
        await asyncio.Event().wait()

    await asyncio.sleep(0)  # the task is not left cancelled


async def test_a_block_within_its_deadline_returns() -> None:
    expiry = Expiry(0.01)
    with Deadline(expiry):
        await asyncio.sleep(0)

    await asyncio.sleep(0.03)  # longer than the deadline of the block
    with pytest.raises(KeyError), Deadline(expiry):
        raise KeyError


async def test_a_cancelled_block_is_cancelled() -> None:
    async def wait() -> None:
        with Deadline(Expiry(10)):
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_who_cancels_a_block_at_its_deadline_is_obeyed() -> None:
    async def wait() -> None:
        with Deadline(Expiry(0.01)):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                task.cancel()  # somebody else, at the same time
                raise

    task = asyncio.create_task(wait())

    with pytest.raises(asyncio.CancelledError):
        await task
