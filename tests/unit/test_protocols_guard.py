"""Where requests and credentials may go, and links from answers."""

import ipaddress
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crm_core.errors import BadAnswer, BadRequest, Misconfigured, Unavailable
from crm_core.protocols.guard import (
    Guard,
    Origins,
    Place,
    origin_of,
    path_and_query,
    place_of,
    same_origin,
    split_url,
    stays_below,
)

CLOSED = Guard(allow_loopback=False, allow_private=False)
OPEN = Guard(allow_loopback=True, allow_private=True)

ALWAYS_REFUSED = [
    "169.254.169.254",
    "169.254.0.1",
    "168.63.129.16",
    "100.100.100.200",
    "192.0.0.192",
    "0.0.0.0",
    "0.1.2.3",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "192.0.2.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "192.88.99.1",
    "2851995905",  # 169.254.1.1
    "0xa9fea9fe",
    "0251.0376.0251.0376",
    "169.16689662",
    "[::]",
    "[fe80::1]",
    "[febf::1]",
    "[fd00:ec2::254]",
    "[ff02::1]",
    "[2001:db8::1]",
    "[2001::1]",
    "[::ffff:169.254.169.254]",
    "[::ffff:0:0]",
    "[::a9fe:a9fe]",
    "[64:ff9b::a9fe:a9fe]",
    "[64:ff9b::10.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b:1::1]",
    "[2002:a9fe:a9fe::]",
    "[2002:7f00:1::]",
    "[2002:c0a8:1::1]",
    "[4000::1]",
    "[100::1]",
    "metadata.google.internal",
    "METADATA.google.internal.",
    "metadata",
    "instance-data.ec2.internal",
]
PRIVATE = [
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "100.64.0.1",
    "100.127.255.254",
    "[fd12:3456::1]",
    "[fc00::1]",
    "[fec0::1]",
    "[::ffff:10.1.2.3]",
    "167772161",
    "0x0a.1",
    "012.0.0.1",
]
LOOPBACK = ["127.0.0.1", "127.1.2.3", "[::1]", "2130706433", "0x7f.1", "0177.0.0.1", "[::ffff:127.0.0.1]"]
PUBLIC = [
    "8.8.8.8",
    "172.32.0.1",
    "100.128.0.1",
    "[2606:4700::1111]",
    "[64:ff9b::808:808]",
    "[2002:808:808::]",
]


@pytest.mark.parametrize("host", ALWAYS_REFUSED)
def test_some_places_are_never_called(host):
    with pytest.raises(BadRequest, match=r"never calls it"):
        OPEN.check_url(f"https://{host}/secret-path?secret-query")


@pytest.mark.parametrize("host", PRIVATE)
def test_private_addresses_need_their_setting(host):
    with pytest.raises(BadRequest, match="ALLOW_PRIVATE_HOSTS") as caught:
        Guard(allow_loopback=True, allow_private=False).check_url(f"https://{host}/secret-path?secret-query")
    assert "secret" not in str(caught.value)
    Guard(allow_loopback=False, allow_private=True).check_url(f"https://{host}/")


@pytest.mark.parametrize("host", LOOPBACK)
def test_loopback_needs_its_setting_and_may_speak_http(host):
    with pytest.raises(BadRequest, match="ALLOW_LOOPBACK") as caught:
        Guard(allow_loopback=False, allow_private=True).check_url(f"http://{host}/secret-path?secret-query")
    assert "secret" not in str(caught.value)
    OPEN.check_url(f"http://{host}/")
    OPEN.check_url(f"https://{host}/")


@pytest.mark.parametrize("host", PUBLIC)
def test_public_addresses_are_called_by_https_only(host):
    CLOSED.check_url(f"https://{host}/")
    with pytest.raises(BadRequest, match="https"):
        OPEN.check_url(f"http://{host}/")


@pytest.mark.parametrize(
    "url",
    [
        "ftp://x.example/",
        "file:///etc/passwd",
        "//x.example/",
        "x.example",
        "https://",
        "https:///path",
        "https://user:pw@x.example/",
        "https://user@x.example/",
        "https://x.example/#fragment",
        "https://x.example/#",
        "https://x.example:0/",
        "https://x.example:65536/",
        "https://x.example:99999999/",
        "https://x.example:a/",
        "https://x.example:-1/",
        "https://x.example:\u0661/",
        "https://[fe80::1%25eth0]/",
        "https://[::1%251]/",
        "https://[::1]x/",
        "https://x[::1]/",
        "https://[1.2.3.4]/",
        "https://[::g]/",
        "https://a..b/",
        "https://.a/",
        "https://-a.example/",
        "https://a%2eb/",
        "https://" + "a" * 64 + ".example/",
        "https://" + "a." * 130 + "example/",
        "https://1.2.3.4.5/",
        "https://1.2.3.256/",
        "https://x.0x/",
        "https://08.0.0.1/",
        "https://x.example\\@y.example/",
        "https://x.example/a b",
        "https://x.example/a\r\nHost: y",
        "https://x.example\t/",
        " https://x.example/",
        "https://x\u2044y.example/",
    ],
)
def test_urls_that_can_be_read_in_two_ways_are_refused(url):
    with pytest.raises(BadRequest) as caught:
        OPEN.check_url(url)
    assert "etc" not in str(caught.value)
    assert "user" not in str(caught.value).replace("user name", "")


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("HTTPS://X.Example:443", "https://x.example/"),
        ("https://x.example.:8443/a?b=c", "https://x.example:8443/a?b=c"),
        ("https://x.example:/a", "https://x.example/a"),
        ("https://b\u00fccher.example/", "https://xn--bcher-kva.example/"),
        ("https://8.8.2056/", "https://8.8.8.8/"),
        ("https://\uff18.8.8.8/", "https://8.8.8.8/"),
        ("https://[2606:4700:0:0::1111]:8443/", "https://[2606:4700::1111]:8443/"),
        ("https://under_score.example/", "https://under_score.example/"),
    ],
)
def test_a_url_has_one_normal_form(url, normal):
    assert CLOSED.check_url(url).geturl() == normal


def test_a_name_in_another_script_that_spells_an_address_is_that_address():
    with pytest.raises(BadRequest, match="never calls"):
        OPEN.check_url("https://\uff11\uff16\uff19.254.169.254/")


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_every_notation_of_an_ipv4_address_is_judged_alike(number):
    address = ipaddress.IPv4Address(number)
    a, b, c, d = address.packed
    rest = (b << 16) + (c << 8) + d
    forms = [str(address), str(number), hex(number), f"{a}.{rest}", f"{a:#x}.{b}.0{(c << 8) + d:o}"]

    def judged(host: str) -> str:
        try:
            return OPEN.check_url(f"https://{host}/").geturl()
        except BadRequest as error:
            return str(error)

    assert len({judged(form) for form in forms}) == 1
    mapped = ipaddress.IPv6Address(f"::ffff:{address}")
    assert place_of(mapped) is place_of(address)


@settings(deadline=None)
@given(st.ip_addresses())
def test_what_is_public_is_global_and_no_metadata(address):
    # Judged by the address that it stands for; Python 3.13 calls 2002::/16 itself not global.
    plain = getattr(address, "ipv4_mapped", None) or getattr(address, "sixtofour", None) or address
    if place_of(address) is Place.PUBLIC and plain not in ipaddress.ip_network("64:ff9b::/96"):
        assert plain.is_global
        assert not any((plain.is_private, plain.is_link_local, plain.is_multicast, plain.is_reserved))
        assert str(plain) not in {"168.63.129.16", "169.254.169.254"}


def resolving(monkeypatch, *answers):
    """Makes getaddrinfo give one of `answers` per call, the last one for ever; lists the calls."""
    calls = []

    def fake(host, port, *args, **kwargs):
        given_addresses = answers[min(len(calls), len(answers) - 1)]
        calls.append((host, port))
        if isinstance(given_addresses, Exception):
            raise given_addresses
        return [
            (
                socket.AF_INET6 if ":" in each else socket.AF_INET,
                socket.SOCK_STREAM,
                6,
                "",
                (each, port, 0, 0) if ":" in each else (each, port),
            )
            for each in given_addresses
        ]

    monkeypatch.setattr(socket, "getaddrinfo", fake)
    return calls


def test_a_name_is_resolved_once_and_judged(monkeypatch):
    calls = resolving(monkeypatch, ["8.8.8.8", "2606:4700::1111", "8.8.8.8"])
    assert CLOSED.addresses("X.example.", 443) == ("8.8.8.8", "2606:4700::1111")
    assert calls == [("x.example", 443)]
    assert CLOSED.resolve("x.example", 443) == "8.8.8.8"
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("bad", "remedy"),
    [
        ("169.254.169.254", "never calls"),
        ("10.0.0.1", "ALLOW_PRIVATE_HOSTS"),
        ("127.0.0.1", "ALLOW_LOOPBACK"),
        ("fe80::1%eth0", "never calls"),
        ("::ffff:a9fe:a9fe", "never calls"),
    ],
)
def test_one_bad_address_refuses_the_name(monkeypatch, bad, remedy):
    resolving(monkeypatch, ["8.8.8.8", bad])
    with pytest.raises(BadRequest, match=remedy) as caught:
        CLOSED.addresses("x.example", 443)
    assert "x.example" in str(caught.value)


@pytest.mark.parametrize("answer", [socket.gaierror(-2, "no"), UnicodeError(), []])
def test_a_name_that_does_not_resolve(monkeypatch, answer):
    resolving(monkeypatch, answer)
    with pytest.raises(Unavailable, match=r"x\.example") as caught:
        CLOSED.addresses("x.example", 443)
    assert not caught.value.outcome_unknown


def test_literals_and_metadata_names_are_judged_without_dns(monkeypatch):
    calls = resolving(monkeypatch, ["8.8.8.8"])
    assert CLOSED.addresses("8.8.8.8", 443) == ("8.8.8.8",)
    assert OPEN.addresses("[::1]", 443) == ("::1",)
    for host in ("169.254.169.254", "metadata.google.internal", "::ffff:169.254.169.254"):
        with pytest.raises(BadRequest, match="never calls"):
            OPEN.addresses(host, 443)
    assert not calls


def test_localhost_has_to_stay_here(monkeypatch):
    resolving(monkeypatch, ["8.8.8.8"])
    with pytest.raises(BadRequest, match="loopback"):
        OPEN.addresses("a.localhost", 80)


ORIGINS = Origins((".dynamics.com", "login.microsoftonline.com"))


@pytest.mark.parametrize(
    "url",
    [
        "https://x.dynamics.com/api",
        "https://a.b.crm4.dynamics.com:443/",
        "https://X.DYNAMICS.COM./",
        "https://login.microsoftonline.com/tenant",
    ],
)
def test_credentials_go_to_declared_origins(url):
    ORIGINS.check(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://evildynamics.com/",
        "https://dynamics.com/",
        "https://x.dynamics.com.evil.com/",
        "https://x.dynamics.com:8443/",
        "http://x.dynamics.com/",
        "https://evil.login.microsoftonline.com/",
        "https://x.example/dynamics.com",
        "https://x.example/?.dynamics.com",
        "https://127.0.0.1/",
        "http://localhost/",
    ],
)
def test_credentials_go_nowhere_else(url):
    assert not ORIGINS.allows(url)
    with pytest.raises(Misconfigured, match="Admin") as caught:
        ORIGINS.check(f"{url}?planted")
    assert "planted" not in str(caught.value)
    assert f"{origin_of(url)}: allowed are *.dynamics.com, login.microsoftonline.com" in str(caught.value)


def test_a_confirmed_origin_is_exact():
    origins = Origins((".x.com",), "https://SAP.corp.example:8443/")
    origins.check("https://sap.corp.example:8443/sap/opu")
    for url in (
        "https://sap.corp.example/",
        "https://a.sap.corp.example:8443/",
        "http://sap.corp.example:8443/",
    ):
        assert not origins.allows(url)
    assert not Origins(()).allows("https://sap.corp.example/")


def test_loopback_gets_credentials_only_where_it_is_allowed():
    for url in ("http://127.0.0.1:8000/", "https://localhost:9/", "https://[::1]:9/", "http://a.localhost/"):
        Origins((), allow_loopback=True).check(url)
        assert not Origins((), allow_loopback=False).allows(url)
    assert not Origins((), allow_loopback=True).allows("https://localhost.evil.example/")
    assert not Origins((), allow_loopback=True).allows("https://127.0.0.1.evil.example/")


def test_origins_are_compared_in_normal_form():
    assert same_origin("https://X.example", "https://x.example.:443/a?b")
    assert not same_origin("https://x.example", "http://x.example")
    assert not same_origin("https://x.example", "https://x.example:8443")
    assert not same_origin("/a", "/a")
    assert origin_of("https://x.example:8443/a") == "https://x.example:8443"
    assert split_url("https://x.example").path == "/"


BASE = "https://x.crm.dynamics.com/api/data/v9.2"


@pytest.mark.parametrize(
    ("link", "rest"),
    [
        (f"{BASE}/accounts?$skiptoken=%3Ca%3E", "accounts?$skiptoken=%3Ca%3E"),
        ("https://evil.example/api/data/v9.2/accounts?a=b", "accounts?a=b"),
        ("http://169.254.169.254/api/data/v9.2/accounts", "accounts"),
        ("/api/data/v9.2/accounts(1)?x", "accounts(1)?x"),
    ],
)
def test_of_a_link_only_path_and_query_are_taken(link, rest):
    assert path_and_query(link, BASE) == rest
    assert path_and_query(link, BASE + "/") == rest


@pytest.mark.parametrize(
    "link",
    [
        "accounts?a=b",
        "?a=b",
        "",
        "//evil.example/api/data/v9.2/accounts",
        "ftp://x/api/data/v9.2/accounts",
        "javascript:alert(1)",
        "https://[/api/data/v9.2/accounts",
        f"{BASE}",
        f"{BASE}/../../admin",
        f"{BASE}/%2e%2e/admin",
        f"{BASE}/a\\b",
        f"{BASE}//evil",
        f"{BASE}.evil/accounts",
        "https://x.crm.dynamics.com/other/accounts",
        f"{BASE}/accounts?a b",
    ],
)
def test_other_links_are_refused(link):
    with pytest.raises(BadAnswer):
        path_and_query(link, BASE)


@pytest.mark.parametrize(
    "path", ["..", "a/..", "./a", "%2e%2e/a", "a/%2E%2e%2fb", "//x", "a\\b", "a%5cb", "a\nb"]
)
def test_paths_that_could_climb(path):
    assert not stays_below(path)


@pytest.mark.parametrize(
    "path", ["", "a", "a/b", "a..b", "...", "accounts(name='x..y')", "a%20b", ".well-known"]
)
def test_paths_that_stay(path):
    assert stays_below(path)
