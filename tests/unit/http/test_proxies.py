import pytest
from yarl import URL

from engine.http.proxies import Proxies, from_environment
from engine.model.errors import ConfigError
from engine.progress.redaction import redactor

NAMES = [form for name in ("https_proxy", "http_proxy", "all_proxy", "no_proxy") for form in (name, name.upper())]


@pytest.fixture
def proxies(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)

    def read(**variables) -> Proxies:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return from_environment()

    return read


def before(proxies, url):
    proxy = proxies.before(URL(url))
    return proxy and str(proxy.url)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, None),
        ({"HTTPS_PROXY": "http://p:3128"}, "http://p:3128"),
        ({"https_proxy": "http://small:1", "HTTPS_PROXY": "http://LARGE:1"}, "http://small:1"),
        ({"ALL_PROXY": "p:3128"}, "http://p:3128"),
        ({"ALL_PROXY": "http://a:1", "HTTPS_PROXY": "http://p:1"}, "http://p:1"),
        ({"HTTP_PROXY": "http://p:3128"}, None),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "*"}, None),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "other.com, sama.com"}, None),
        ({"HTTPS_PROXY": "http://p:3128", "no_proxy": ".sama.com"}, None),
        ({"HTTPS_PROXY": "http://p:3128", "no_proxy": "ama.com"}, "http://p:3128"),
        ({"HTTPS_PROXY": "http://p:3128", "no_proxy": "api.sama.com:443"}, None),
    ],
)
def test_the_proxy_of_a_url_is_read_from_the_variables_in_both_cases(proxies, variables, expected):
    assert before(proxies(**variables), "https://api.sama.com/v2") == expected


@pytest.mark.parametrize("url", ["http://127.0.0.1:8800/v2", "https://localhost/v2", "https://[::1]/v2"])
def test_no_proxy_stands_before_this_machine(proxies, url):
    assert before(proxies(HTTPS_PROXY="http://p:1", HTTP_PROXY="http://p:1", ALL_PROXY="http://p:1"), url) is None


def test_a_password_is_no_part_of_the_address_and_hidden_everywhere(proxies):
    found = proxies(HTTPS_PROXY="http://robot:p%40ssw%2Frd@p:3128")
    proxy = found.before(URL("https://api.sama.com"))
    assert str(proxy.url) == "http://p:3128"
    assert proxy.headers == {"Proxy-Authorization": "Basic cm9ib3Q6cEBzc3cvcmQ="}
    assert "cm9ib3" not in repr(found)
    hide = redactor({})
    for form in ("p@ssw/rd", "p%40ssw%2Frd", "cm9ib3Q6cEBzc3cvcmQ="):
        assert "*" in hide(f"it said {form}"), form


@pytest.mark.parametrize("value", ["socks5://p:1", "http://", "http://p:999999", "ftp://p", "http://[::1"])
def test_a_proxy_that_cannot_be_used_is_an_error_that_names_the_variable_and_not_its_value(proxies, value):
    found = proxies(HTTPS_PROXY=value.replace("//", "//robot:passw0rd@"))
    with pytest.raises(ConfigError, match="HTTPS_PROXY") as caught:
        found.before(URL("https://api.sama.com/v2"))
    assert "passw0rd" not in str(caught.value)


@pytest.mark.parametrize(
    ("variables", "url", "expected"),
    [
        ({}, "http://127.0.0.1:8800/v2", None),
        ({"NO_PROXY": "sama.com"}, "https://api.sama.com/v2", None),
        ({"HTTPS_PROXY": "http://p:1"}, "https://api.sama.com/v2", "http://p:1"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_no_error_where_it_is_not_needed(proxies, variables, url, expected):
    assert before(proxies(ALL_PROXY="socks5://s:1", **variables), url) == expected
