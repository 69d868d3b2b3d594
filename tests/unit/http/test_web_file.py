import base64
import re

import pytest
from fakes.files_server import serving_files

from engine.http.remote import DownloadBroken
from engine.http.web_file import WebFile
from engine.model.errors import SourceError
from engine.progress.redaction import redactor


@pytest.fixture
async def server():
    async with serving_files() as serving:
        serving.content = b"{}\n"
        yield serving


async def fetched(file):
    async with file.read(0, "") as part:
        return b"".join([block async for block in part.blocks])


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://files.example/x.csv", 'say plain_http_hosts = ["files.example"]'),
        ("https://files.example/", "names no file"),
        ("https:///x.csv", "names no file"),
        ("https://files.example:port/x", "cannot be read as a URL"),
    ],
)
def test_a_url_that_cannot_be_fetched_is_refused(url, said):
    with pytest.raises(SourceError, match=re.escape(said)):
        WebFile(url, ())


def test_plain_http_goes_to_hosts_that_a_person_has_named():
    assert WebFile("http://Files.example/x.csv?a=1", ["files.example"]).file_name == "x.csv"


async def test_name_password_and_query_are_shown_nowhere_and_go_to_the_server(server):
    url = server.url("x.csv?X-Amz-Signature=0123456789abcdef").replace("//", "//ann:correct-horse@")
    file = WebFile(url, ())
    assert file.name == server.url("x.csv?***").replace("//", "//***@")
    assert await fetched(file) == b"{}\n"
    (asked,) = server.asked
    assert asked["path"] == "/x.csv?X-Amz-Signature=0123456789abcdef"
    assert asked["Authorization"] == f"Basic {base64.b64encode(b'ann:correct-horse').decode()}"
    assert redactor({})("it said correct-horse") == "it said ***"
    server.statuses = [403]
    with pytest.raises(SourceError, match="may not be read") as caught:
        await fetched(file)
    assert "0123456789" not in str(caught.value)
    assert "horse" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "said"),
    [(404, "does not exist there"), (410, "does not exist"), (401, "may not be read"), (400, "status 400 instead")],
)
async def test_a_status_that_stays_so_is_told(server, status, said):
    server.statuses = [status]
    with pytest.raises(SourceError, match=said):
        await fetched(WebFile(server.url("x"), ()))


@pytest.mark.parametrize("status", [408, 429, 500, 503])
async def test_a_status_that_passes_may_be_asked_again(server, status):
    server.statuses = [status]
    with pytest.raises(DownloadBroken, match=f"status {status}"):
        await fetched(WebFile(server.url("x"), ()))


async def test_a_server_may_send_us_on_within_bounds_and_keeps_its_password_to_itself(server):
    async with serving_files() as other:
        other.content = b"[]"
        server.redirects = ["/moved", other.url("there")]
        assert await fetched(WebFile(server.url("x").replace("//", "//ann:secret-word@"), ())) == b"[]"
        assert [bool(asked["Authorization"]) for asked in server.asked + other.asked] == [True, True, False]
    server.redirects = ["/x"] * 9
    with pytest.raises(SourceError, match="more than 5 times"):
        await fetched(WebFile(server.url("x"), ()))


@pytest.mark.parametrize(
    "to",
    [
        "http://files.example/x",
        "https://169.254.169.254/latest/meta-data",
        "https://[::ffff:10.0.0.1]/x",
        "https://ann:word@files.example/x",
        "file:///etc/passwd",
        "https://localhost/x",
    ],
)
async def test_a_server_sends_us_nowhere_that_is_not_public(to):
    file = WebFile("https://files.example/x", ())
    with pytest.raises(SourceError, match="nothing is fetched from there"):
        file._sent_on(file._url, to)


async def test_the_version_is_a_strong_tag_or_nothing(server):
    file = WebFile(server.url("x"), ())
    assert await file.version() == '"v1"'
    server.tag = 'W/"v1"'
    assert not await file.version()
    server.statuses = [403]
    assert not await file.version()


async def test_a_server_that_is_not_there_may_be_asked_again():
    with pytest.raises(DownloadBroken, match="no connection"):
        await fetched(WebFile("http://127.0.0.1:1/x", ()))
