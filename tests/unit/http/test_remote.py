import random

import pytest
from fakes.files_server import serving_files

from engine.http import remote
from engine.http.remote import download
from engine.http.web_file import WebFile
from engine.model.errors import SourceError, SourceUnreachable
from engine.progress.events import CallRetried, SourceCopied

CONTENT = random.Random(16).randbytes(300_000)


@pytest.fixture
async def server():
    async with serving_files() as serving:
        serving.content = CONTENT
        yield serving


class Fetching:
    def __init__(self, server, path):
        self.server, self.path, self.events, self.waits = server, path, [], []

    async def __call__(self, name="tasks.csv"):
        async def sleep(seconds):
            self.waits.append(seconds)

        return await download(WebFile(self.server.url(name), ()), self.path, sleep, self.events.append)

    def ranges(self):
        return [(one["Range"], one["If-Match"]) for one in self.server.asked]

    def note(self):
        return self.path.with_name(f"{self.path.name}.note")


@pytest.fixture
def fetching(server, tmp_path):
    return Fetching(server, tmp_path / "job" / "copy")


async def test_a_file_is_fetched_into_a_private_one(fetching):
    assert await fetching() == '"v1"'
    assert fetching.path.read_bytes() == CONTENT
    assert fetching.path.stat().st_mode & 0o777 == fetching.note().stat().st_mode & 0o777 == 0o600
    copied = [event for event in fetching.events if isinstance(event, SourceCopied)]
    assert copied[0].words.endswith(f"/tasks.csv (300 KB) is fetched first, to {fetching.path}")
    assert copied[-1].words.endswith(f"/tasks.csv is fetched: 300 KB in {fetching.path}")


async def test_a_connection_that_breaks_goes_on_where_it_broke_with_the_same_version(fetching, server):
    server.breaks_after = [100_000, 50_000]
    await fetching()
    assert fetching.path.read_bytes() == CONTENT
    first, *others = fetching.ranges()
    assert first == ("", "")
    assert [(0 < int(asked.removeprefix("bytes=")[:-1]) <= 150_000, tag) for asked, tag in others] == [
        (True, '"v1"')
    ] * 2
    retried = [event for event in fetching.events if isinstance(event, CallRetried)]
    assert [event.kind for event in retried] == ["download"] * 2
    assert fetching.waits == [2.0, 2.0]


@pytest.mark.parametrize("ways", [{"parts": False}, {"tag": ""}, {"tag": 'W/"weak"'}])
async def test_a_server_that_cannot_go_on_is_asked_for_all_again(fetching, server, ways):
    for name, value in ways.items():
        setattr(server, name, value)
    server.breaks_after = [100_000]
    await fetching()
    assert fetching.path.read_bytes() == CONTENT


async def test_two_versions_are_never_joined(fetching, server):
    def change():
        server.content, server.tag = CONTENT[::-1], '"v2"'

    server.breaks_after, server.after_break = [100_000], change
    assert await fetching() == '"v2"'
    assert fetching.path.read_bytes() == CONTENT[::-1]
    assert any("another one by now" in event.reason for event in fetching.events if isinstance(event, CallRetried))


async def test_the_next_process_goes_on_with_what_was_fetched_and_no_further_than_what_is_surely_on_disk(
    fetching, server, monkeypatch
):
    server.breaks_after = [100_000] * 9
    server.statuses = []
    monkeypatch.setattr(remote, "MOST_TRIES", 1)
    with pytest.raises(SourceUnreachable, match=r"could not be fetched: .*Nothing was sent; the 100 KB that have come"):
        await fetching()
    with fetching.path.open("ab") as file:
        file.write(bytes(5000))  # as a power loss may leave it
    server.breaks_after, before = [], len(server.asked)
    await fetching()
    assert fetching.path.read_bytes() == CONTENT
    assert fetching.ranges()[before:] == [("bytes=100000-", '"v1"')]


async def test_a_whole_file_is_not_fetched_twice_unless_it_has_changed(fetching, server):
    await fetching()
    await fetching()
    assert fetching.ranges()[1:] == [("bytes=299999-", '"v1"')]
    server.content, server.tag = b"{}\n", '"v2"'
    assert await fetching() == '"v2"'
    assert fetching.path.read_bytes() == b"{}\n"


async def test_what_was_fetched_of_another_file_is_not_gone_on_with(fetching, server):
    await fetching()
    await fetching("other.csv")
    assert fetching.ranges()[1:] == [("", "")]


async def test_a_server_that_is_down_is_asked_again_for_a_minute(fetching, server):
    server.statuses = [503] * 99
    with pytest.raises(SourceUnreachable, match="status 503") as caught:
        await fetching()
    assert caught.value.exit_status == 5
    assert fetching.waits == [2.0, 4.0, 8.0, 16.0, 30.0]


async def test_a_full_disk_is_told_before_a_byte_is_fetched(fetching, monkeypatch):
    monkeypatch.setattr("engine.files.DISK_ROOM_BYTES", 1 << 60)
    with pytest.raises(SourceError, match=r"could not be written to .*No space left on device.*make room"):
        await fetching()
    assert fetching.path.stat().st_size == 0
