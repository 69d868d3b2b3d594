import datetime as dt

import pytest

from engine.commands.wiring import load
from engine.model.error_hints import Blame, Pause, Refusal
from engine.model.errors import ConfigError

from .scripted import API, PROJECT, TASK_ID, service, settings


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("us", API),
        ("eu", "https://eu-api.sbgenomics.com/v2"),
        ("cgc", "https://cgc-api.sbgenomics.com/v2"),
        ("cavatica", "https://cavatica-api.sbgenomics.com/v2"),
        ("biodatacatalyst", "https://api.sb.biodatacatalyst.nhlbi.nih.gov/v2"),
        ("http://127.0.0.1:8801/v2/", "http://127.0.0.1:8801/v2"),
    ],
)
def test_a_platform_has_a_name_and_any_other_service_a_url(name, url):
    assert settings(base_url=name).base_url == url


def test_without_an_address_the_first_platform_is_meant():
    assert settings().base_url == API


@pytest.mark.parametrize(
    ("name", "hint"), [("cavatika", "did you mean 'cavatica'?"), ("moon", "known: us, eu, cgc, cavatica")]
)
def test_an_unknown_platform_is_told_with_the_nearest(name, hint):
    with pytest.raises(ValueError, match="neither a URL nor the name of a platform") as error:
        settings(base_url=name)
    assert hint in str(error.value)


def test_the_token_travels_in_the_vendors_header_and_nowhere_else():
    (header,) = settings().secret_headers().items()
    assert (header[0], header[1].get_secret_value()) == ("X-SBG-Auth-Token", "the-token")
    assert settings().secret_query() == {}
    assert settings().allowed_upload_hosts() == ()


@pytest.mark.parametrize(
    ("base_url", "project", "page"),
    [
        ("us", PROJECT, f"https://igor.sbgenomics.com/u/owner/project/tasks/{TASK_ID}/"),
        ("cgc", PROJECT, f"https://cgc.sbgenomics.com/u/owner/project/tasks/{TASK_ID}/"),
        ("us", None, f"{API}/tasks/{TASK_ID}"),
        ("http://127.0.0.1:8801/v2", PROJECT, f"http://127.0.0.1:8801/v2/tasks/{TASK_ID}"),
    ],
)
def test_a_task_has_a_page_where_its_platform_and_project_are_known(base_url, project, page):
    assert service(base_url=base_url, project=project).task_url(TASK_ID) == page


@pytest.mark.parametrize("value", [dt.date(2024, 1, 1), float("inf"), float("nan"), 2**64, [{"a": 2**70}]])
@pytest.mark.parametrize("key", ["inputs", "execution_settings", "output_location", "batch_by"])
def test_a_default_that_is_no_json_is_refused(key, value):
    with pytest.raises(ValueError, match="no JSON value; put it into quotes"):
        settings(**{key: {"a": value}})


CONFIG = """
[service]
kind = "sevenbridges"
auth_token = "${env:SB_AUTH_TOKEN}"
"""


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("bath = true", "service.bath: unknown key; did you mean 'batch'?"),
        ('base_url = "cgg"', "did you mean 'cgc'?"),
        ('until = "done"', "service.until"),
        ("run = 1.5", "service.run"),
    ],
)
def test_a_configuration_that_cannot_be_used_names_its_key(monkeypatch, line, complaint):
    monkeypatch.setenv("SB_AUTH_TOKEN", "x")
    with pytest.raises(ConfigError) as error:
        load(CONFIG + line)
    assert complaint in str(error.value)


def test_the_assembly_knows_the_service(monkeypatch):
    monkeypatch.setenv("SB_AUTH_TOKEN", "x")
    assert load(CONFIG).service.base_url == API


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (503, b'{"status":503,"code":0,"message":"maintenance"}', Pause),
        (503, b"<html>", type(None)),
        (503, b'{"code":7000}', type(None)),
    ],
)
def test_the_vendors_code_tells_maintenance_from_an_outage(status, body, expected):
    assert isinstance(settings().error_hint(status, body), expected)


@pytest.mark.parametrize(
    ("status", "body", "blame"),
    [
        (403, b'{"status":403,"code":3001,"message":"no access"}', Blame.JOB),
        (404, b'{"status":404,"code":3002}', Blame.JOB),
        (400, b'{"status":400,"code":6001}', Blame.JOB),
        (404, b'{"status":404,"code":6002}', Blame.JOB),
        (403, b'{"status":403,"code":7001}', Blame.JOB),
        (403, b'{"status":403,"code":90002}', Blame.JOB),
        (404, b'{"status":404,"code":5002}', Blame.RECORDS),
        (403, b'{"status":403,"code":7010}', Blame.RECORDS),
        (400, b'{"status":400,"code":7012}', Blame.RECORDS),
        (400, b'{"status":400,"code":90000}', None),
        (403, b'{"status":403,"code":90001}', None),
        (403, b"[]", None),
        (401, b'{"code":90001}', None),
        (404, b'{"code":true}', None),
        (429, b'{"code":1000}', None),
    ],
)
def test_the_vendors_code_tells_whose_fault_a_refusal_is(status, body, blame):
    error_hint = settings().error_hint(status, body)
    assert (error_hint.blame if isinstance(error_hint, Refusal) else error_hint) is blame


@pytest.mark.parametrize(
    ("body", "own"),
    [
        (b'{"status":403,"code":90001,"message":"Unauthorized","more_info":""}', True),
        (b'{"message":"Forbidden"}', False),
        (b"<html><title>403</title></html>", False),
        (b"", False),
    ],
)
def test_the_vendors_form_of_an_error_is_told_from_a_gateways(body, own):
    assert settings().speaks(body) is own
