import anyio
import anyio.lowlevel
import pytest

from engine.run.queues import Queue, Signal, WorkerPool


async def settle():
    for _ in range(5):
        await anyio.lowlevel.checkpoint()


async def test_a_signal_wakes_those_who_wait_and_nobody_who_comes_later():
    signal, woken = Signal(), []

    async def wait(name):
        await signal.wait()
        woken.append(name)

    async with anyio.create_task_group() as group:
        signal.give()
        group.start_soon(wait, "a")
        group.start_soon(wait, "b")
        await settle()
        assert woken == []
        signal.give()
        group.start_soon(wait, "late")
        await settle()
        assert woken == ["a", "b"]
        group.cancel_scope.cancel()


async def test_things_leave_a_line_in_order_and_it_ends_after_the_last_of_them():
    line: Queue[int] = Queue(10)
    await line.put([1, 2])
    await line.put([3])
    line.end()
    assert [thing async for thing in line] == [1, 2, 3]


async def test_who_takes_waits_for_things_and_for_the_end():
    line, taken = Queue(10), []

    async def take():
        taken.extend([thing async for thing in line])
        taken.append("end")

    async with anyio.create_task_group() as group:
        group.start_soon(take)
        await settle()
        await line.put(["a"])
        await settle()
        assert taken == []
        line.end()
    assert taken == ["a", "end"]


async def test_a_line_that_may_be_longer_lets_those_in_who_wait():
    line: Queue[int] = Queue(1)
    await line.put([1])
    async with anyio.create_task_group() as group:
        group.start_soon(line.put, [2])
        await settle()
        line.end()
        line.most = 2
        await settle()
        assert [thing async for thing in line] == [1, 2]


async def test_nothing_is_put_down_while_as_many_wait_as_may():
    line: Queue[int] = Queue(2)
    await line.put([1, 2, 3])  # what comes at once is not torn apart
    async with anyio.create_task_group() as group:
        group.start_soon(line.put, [4])
        taken = []
        for _ in range(2):
            await settle()
            taken.append((await anext(line), len(line._things)))
        await settle()
        assert taken == [(1, 2), (2, 1)]
        assert list(line._things) == [3, 4]


async def test_a_task_that_has_nothing_to_do_gets_the_next_work():
    tasks = []

    async def work(name, more):
        tasks.append((name, anyio.get_current_task().id))
        await more.wait()

    async with anyio.create_task_group() as group:
        workers = WorkerPool(group, work)
        first, second = anyio.Event(), anyio.Event()
        workers.give("a", first)
        workers.give("b", second)
        await settle()
        second.set()
        await settle()
        workers.give("c", first)
        await settle()
        workers.dismiss()
        first.set()
    (_, a), (_, b), (name, c) = tasks
    assert name == "c"
    assert c == b != a


async def test_those_who_are_dismissed_end_at_once_or_with_their_work():
    done = []

    async def work(name, wait):
        await wait.wait()
        done.append(name)

    busy, free = anyio.Event(), anyio.Event()
    free.set()
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            workers = WorkerPool(group, work)
            workers.give("idle", free)
            workers.give("busy", busy)
            await settle()
            workers.dismiss()
            assert done == ["idle"]
            busy.set()
    assert done == ["idle", "busy"]


async def test_work_that_comes_as_all_are_canceled_is_not_done_and_breaks_nothing():
    done = []

    async def work(name):
        await anyio.lowlevel.checkpoint()
        done.append(name)

    async with anyio.create_task_group() as group:
        workers = WorkerPool(group, work)
        workers.give("a")
        await settle()
        group.cancel_scope.cancel()
        workers.give("b")
    assert done == ["a"]


async def test_an_error_of_the_work_ends_the_group():
    async def work():
        raise OSError("broken")

    with pytest.raises(ExceptionGroup) as caught:
        async with anyio.create_task_group() as group:
            WorkerPool(group, work).give()
    assert caught.group_contains(OSError, match="broken")
