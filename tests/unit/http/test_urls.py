import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.http.urls import check_base_url, check_upload_url, exact_hosts, is_loopback, is_public
from engine.model.errors import ConfigError

ALLOWED = ("*.amazonaws.com", "uploads.example.com", "minio.example.org:9000")
GOOD = [
    "https://bucket.s3.amazonaws.com/key?X-Amz-Signature=ab%2Fcd&X-Amz-Expires=14400",
    "https://s3.eu-west-1.amazonaws.com/bucket/key",
    "https://my.dotted.bucket.s3.us-east-1.amazonaws.com/a%20b/~c/(d)",
    "https://old_bucket.s3.amazonaws.com/k",
    "https://S3.AmazonAWS.com/b/k",
    "https://s3.amazonaws.com:443/b/k",
    "https://uploads.example.com/k",
    "https://minio.example.org:9000/k",
]
EVIL = [
    # not https
    "http://bucket.s3.amazonaws.com/k",
    "ftp://bucket.s3.amazonaws.com/k",
    "file:///etc/passwd",
    "javascript:alert(1)",
    "data:text/plain,x",
    "HTTP://s3.amazonaws.com/k",
    "//s3.amazonaws.com/k",
    "/b/k",
    "s3.amazonaws.com/k",
    "https:/s3.amazonaws.com/k",
    "https:///s3.amazonaws.com/k",
    "https:s3.amazonaws.com",
    "",
    # another host
    "https://evil.com/k",
    "https://amazonaws.com.evil.com/k",
    "https://s3.amazonaws.com.evil.com/k",
    "https://evilamazonaws.com/k",
    "https://s3-amazonaws.com/k",
    "https://amazonaws.com/k",
    "https://.amazonaws.com/k",
    "https://sub.uploads.example.com/k",
    "https://evil.com/?x=s3.amazonaws.com",
    "https://evil.com/s3.amazonaws.com",
    "https://evil.com#s3.amazonaws.com",
    "https://s3.amazonaws.com#@evil.com/",
    "https://s3.amazonaws.com/k#fragment",
    # a user name
    "https://s3.amazonaws.com@evil.com/k",
    "https://user@s3.amazonaws.com/k",
    "https://user:password@s3.amazonaws.com/k",
    "https://:@s3.amazonaws.com/k",
    "https://@s3.amazonaws.com/k",
    "https://evil.com:443@s3.amazonaws.com/k",
    # parsers that differ
    "https://s3.amazonaws.com\\@evil.com/k",
    "https://evil.com\\.s3.amazonaws.com/k",
    "https:\\\\s3.amazonaws.com/k",
    "https://evil.com\t.s3.amazonaws.com/k",
    "https://s3.amazonaws.com\n.evil.com/k",
    " https://s3.amazonaws.com/k",
    "https://s3.amazonaws.com/k ",
    "https://s3.amazonaws.com/k\r\nX-Evil: 1",
    "https://s3.amazonaws.com\x00.evil.com/",
    "https://evil.com%2f.s3.amazonaws.com/k",
    "https://evil.com%00.s3.amazonaws.com/k",
    "https://s3.amazonaws.com%2eevil.com/k",
    "https://evil.com/.s3.amazonaws.com/k",
    "https://evil.com;.s3.amazonaws.com/k",
    "https://evil.com&.s3.amazonaws.com/k",
    "https://a..amazonaws.com/k",
    "https://s3.amazonaws.com./k",
    "https://-s3.amazonaws.com/k",
    # look-alikes
    "https://s3.\u0430mazonaws.com/k",
    "https://s3.amazonaws\u3002com/k",
    "https://s3.amazonaws.\uff43om/k",
    "https://\u017f3.amazonaws.com/k",
    "https://s3.ama\u200bzonaws.com/k",
    "https://s3.xn--mazonaws-2fg.com/k",
    "https://xn--s3-8ia.amazonaws.com/k",
    # odd ports
    "https://s3.amazonaws.com:22/k",
    "https://s3.amazonaws.com:80/k",
    "https://s3.amazonaws.com:99999/k",
    "https://s3.amazonaws.com:-1/k",
    "https://s3.amazonaws.com:x/k",
    "https://minio.example.org/k",
    # addresses
    "https://127.0.0.1/k",
    "https://localhost/k",
    "http://localhost:8800/k",
    "http://127.0.0.1:8800/k",
    "https://[::1]/k",
    "https://[::ffff:127.0.0.1]/k",
    "https://169.254.169.254/latest/meta-data",
    "https://[fd00:ec2::254]/latest",
    "https://10.0.0.1/k",
    "https://8.8.8.8/k",
    "https://2130706433/k",
    "https://0x7f.1/k",
    "https://0177.0.0.1/k",
    "https://127.1/k",
    "https://0/k",
    "https://[::1%25eth0]/k",
    "https://[s3.amazonaws.com]/k",
    "https://localhost.evil.com/k",
]


LOCAL = {"http://localhost:8800/k", "http://127.0.0.1:8800/k", "https://127.0.0.1/k", "https://localhost/k"}
LOCAL |= {"https://[::1]/k"}


def test_an_upload_url_on_an_allowed_host_is_passed_on_byte_by_byte():
    for url in GOOD:
        checked = check_upload_url(url, ALLOWED, allow_loopback=False)
        assert str(checked).partition("/")[2].partition("/")[2].partition("/")[2] == url.split("/", 3)[3]
        assert checked.raw_host.lower() == url.split("/")[2].partition(":")[0].lower()


def passed(check, urls, **options):
    """Return those of the URLs that are not refused."""
    let_through = []
    for url in urls:
        with contextlib.suppress(ConfigError):
            check(url, **options)
            let_through.append(url)
    return let_through


def test_an_upload_url_that_leads_anywhere_else_is_refused():
    assert passed(check_upload_url, EVIL, allowed_hosts=ALLOWED, allow_loopback=False) == []


def test_a_service_on_loopback_may_send_us_there_and_nowhere_else():
    assert set(passed(check_upload_url, EVIL, allowed_hosts=ALLOWED, allow_loopback=True)) == LOCAL


@given(st.text())
def test_any_text_is_either_refused_or_leads_to_an_allowed_host(text):
    try:
        url = check_upload_url(f"https://{text}", ALLOWED, allow_loopback=False)
    except ConfigError:
        return
    assert url.raw_host.lower().endswith((".amazonaws.com", "uploads.example.com", "minio.example.org"))


def test_the_refusal_names_the_host_and_the_way_out_but_not_the_query():
    with pytest.raises(ConfigError) as caught:
        check_upload_url("https://evil.com/k?X-Amz-Signature=abcdef", ALLOWED, allow_loopback=False)
    assert "evil.com" in str(caught.value)
    assert "upload_hosts" in str(caught.value)
    assert "abcdef" not in str(caught.value)


def test_a_base_url_is_https_or_on_loopback():
    urls = ("https://api.sama.com/v2", "http://127.0.0.1:8800/v2", "http://localhost/v2", "http://[::1]:1/")
    for url in (*urls, "https://10.0.0.5"):
        assert str(check_base_url(url)).startswith(url)


def test_any_other_base_url_is_an_error_of_the_configuration():
    urls = ("http://api.sama.com/v2", "ftp://x.y", "api.sama.com", "", "https://", "https://u:p@api.sama.com")
    urls += ("http://127.1/", "https://x:99999", "https://[::1")
    assert passed(check_base_url, urls) == []
    with pytest.raises(ConfigError, match="base_url"):
        check_base_url(urls[0])


def test_loopback_is_known_by_its_usual_forms_only():
    loopback = ["127.0.0.1", "127.8.9.1", "::1", "[::1]", "LOCALHOST"]
    others = ["localhost.evil.com", "127.0.0.1.evil.com", "10.0.0.1", "127.1", ""]
    assert [host for host in (*loopback, *others) if is_loopback(host)] == loopback


PUBLIC = ["1.1.1.1", "52.216.0.1", "100.63.255.255", "100.128.0.0", "172.15.255.255", "172.32.0.0", "192.0.1.1"]
PUBLIC += ["192.31.196.1", "198.17.255.255", "198.20.0.0", "223.255.255.255"]
PUBLIC += ["2600:1f18::1", "2001:200::1", "2a00:1450:4001::200e", "3fff:1000::1", "2600::200:5eff:3e4d:1"]
PUBLIC += ["64:ff9b::34d8:1", "::ffff:52.216.0.1"]

NOT_PUBLIC = {
    "this network": ["0.0.0.0", "0.1.2.3"],  # noqa: S104
    "private": ["10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1", "fd00::1", "fc00::1"],
    "shared": ["100.64.0.1", "100.127.255.255"],
    "loopback": ["127.0.0.1", "127.255.255.255", "::1"],
    "link-local": ["169.254.169.254", "fe80::1", "fe80::1%eth0"],
    "site-local": ["fec0::1", "feff::1"],
    "unspecified": ["::"],
    "protocol assignments": ["192.0.0.1", "192.0.0.9", "192.0.0.170", "2001:1::1", "2001:2::1", "2001:1ff::1"],
    "documentation": ["192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1", "3fff::1", "3fff:fff::1"],
    "benchmarking": ["198.18.0.1", "198.19.255.255", "2001:2:0::1"],
    "multicast": ["224.0.0.1", "239.255.255.255", "ff02::1", "ff0e::1"],
    "reserved": ["240.0.0.1", "255.255.255.255", "4000::1", "1000::1", "e000::1"],
    "relays of 6to4": ["192.88.99.1"],
    "6to4": ["2002:7f00:1::1", "2002:a00:1::1", "2002:34d8:1::1"],
    "Teredo": ["2001:0:0:0:0:0:f5ff:fffe", "2001::1"],
    "6bone": ["3ffe::1"],
    "v4-compatible": ["::10.0.0.1", "::127.0.0.1", "::52.216.0.1"],
    "v4-translated": ["::ffff:0:10.0.0.1", "::ffff:0:52.216.0.1"],
    "v4-mapped": ["::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:192.88.99.1"],
    "NAT64": ["64:ff9b::a00:1", "64:ff9b::a9fe:a9fe"],
    "local NAT64": ["64:ff9b:1::a00:1", "64:ff9b:1::34d8:1"],
    "ISATAP": ["2600:1f18::5efe:10.0.0.1", "2600:1f18::200:5efe:10.0.0.1", "2600:1f18::200:5efe:52.216.0.1"],
    "discard": ["100::1", "100:0:0:1::1"],
    "segment routing": ["5f00::1"],
}


@pytest.mark.parametrize("kind", NOT_PUBLIC)
def test_addresses_that_are_no_host_of_the_open_internet_are_refused(kind):
    assert [address for address in NOT_PUBLIC[kind] if is_public(address)] == []


def test_addresses_on_the_open_internet_are_let_through():
    assert [address for address in PUBLIC if not is_public(address)] == []


def test_only_exact_names_are_trusted():
    assert exact_hosts(ALLOWED) == ["uploads.example.com", "minio.example.org"]
