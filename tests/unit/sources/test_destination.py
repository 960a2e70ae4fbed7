"""Destinations: nowhere but to the host that a person sees, and there to the byte."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ray_tracking.pipeline.links import check_link
from ray_tracking.sources.destination import check_destination, location_header

ASCII_URLS = [
    "https://example.com",
    "https://example.com/",
    "HTTPS://Example.COM/Path",
    "http://example.com:8080/a",
    "http://example.com:/a",
    "https://example.com./trailing.../",
    "https://example.com/?",
    "https://example.com?",
    "https://example.com#",
    "https://example.com/?a=1&amp;b=2&c=%e2%82%AC&d=%zz&e=100%",
    "https://example.com/a+b?c+d#e+f",
    "https://example.com/it's/(x)/[y]/{z}/|/^/`/\"<>/~/*/;/,/$/!",
    "https://example.com/a//b/./../c",
    "https://example.com/login?next=https://user@other.com/",
    "https://example.com/@handle#@x",
    "https://example.com?@evil.com",
    "https://a_b.example.com/",
    "https://xn--mnchen-3ya.de/",
    "https://192.0.2.1/",
    "http://[2001:db8::1]:443/x",
    "http://[2001:DB8::A]/",
    "http://localhost:3000/x",
    "https://example.com/#/app?x=1#y",
]

REFUSED = [
    "",
    " ",
    "example.com",
    "//example.com/",
    "/path",
    "https:",
    "https:/example.com",
    "https:example.com",
    "http://",
    "http:///x",
    "https:////example.com",
    "http://?x",
    "http://#x",
    "http://:80/",
    r"http:\\evil.com",
    r"https:/\evil.com",
    r"https://good.com\@evil.com",
    r"https://good.com\.evil.com/",
    r"https://good.com/a\b",
    "https://good@evil.com",
    "https://good.com:80@evil.com/",
    "https://@evil.com/",
    "https://good%2ecom/",
    "https://good.com%40evil.com/",
    "https://good.com%2eevil.com/",
    "https://good.com%00/",
    "https://exa mple.com/",
    " https://example.com/",
    "https://example.com/ ",
    "https://example.com/\u00a0",
    "https://example.com/\r\nSet-Cookie: a=b",
    "https://example.com/\tx",
    "ht\ntps://example.com/",
    "https://example.com/\x00",
    "https://example.com/\x7f",
    "https://example.com/\x85",
    "https://example.com/a\x85b",
    "https://example.com/a\x9bb",
    "https://example.com/\ud800",
    "https://example.com:port/",
    "https://example.com:65536/",
    "https://example.com:-1/",
    "https://example.com:80:80/",
    "https://example.com:٨٠/",
    "https://example..com/",
    "https://.example.com/",
    "https://./",
    "https://" + "a" * 64 + ".com/",
    "https://" + "a." * 127 + "com/",
    "https://" + "é" * 300 + ".com/",
    "https://ex$ample.com/",
    "https://example.com,evil.com/",
    "http://[::1/",
    "http://::1/",
    "http://[::1]x/",
    "http://[fe80::1%25eth0]/",
    "http://[evil.com]/",
    "http://[1.2.3.4]/",
    "javascript:alert(1)",
    "javascript://example.com/%0aalert(1)",
    "data:text/html,x",
    "ftp://example.com/",
    "mailto:a@example.com",
    "httpx://example.com/",
    "http\u017f://example.com/",
    "https\uff1a//example.com/",
    "https://good.com\uff0fevil.com/",
    "https://good.com\uff20evil.com/",
    "https://good.com\uff1f.evil.com/",
    "https://\u2100.evil.com/",
    "https://\u202emoc.doog/",
    "https://xn--é.com/",
    "https://example.com/" + "a" * 8192,
]


@pytest.mark.parametrize("url", ASCII_URLS)
def test_a_good_url_of_ascii_goes_out_byte_for_byte(url: str) -> None:
    assert check_destination(url) is None
    assert location_header(url) == url.encode()


@pytest.mark.parametrize("url", REFUSED)
def test_what_leads_nowhere_or_elsewhere_is_refused_with_a_reason(url: str) -> None:
    reason = check_destination(url)

    assert reason is not None
    assert reason.startswith("must ")
    with pytest.raises(ValueError, match="must "):
        location_header(url)


@pytest.mark.parametrize("url", ["http://", "http:///x", "https://?x", "https://#x", "http://:80/"])
def test_a_url_without_a_host_is_told_so(url: str) -> None:
    assert check_destination(url) == "must have a host"


def test_the_longest_url_is_8192_characters() -> None:
    longest = ("https://example.com/" + "a" * 8192)[:8192]

    assert check_destination(longest) is None
    assert check_destination(longest + "a") == "must be at most 8192 characters long"


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("https://example.com/a b?c d#e f", b"https://example.com/a%20b?c%20d#e%20f"),
        ("https://example.com/straße", b"https://example.com/stra%C3%9Fe"),
        ("https://example.com/?q=ü&r=%fc", b"https://example.com/?q=%C3%BC&r=%fc"),
        ("https://example.com/\U0001f600#\U0001f600", b"https://example.com/%F0%9F%98%80#%F0%9F%98%80"),
        ("https://example.com/a\u2028b", b"https://example.com/a%E2%80%A8b"),
        ("https://münchen.de:8443/ü", b"https://xn--mnchen-3ya.de:8443/%C3%BC"),
        ("https://faß.de", b"https://xn--fa-hia.de"),
        ("https://MÜNCHEN.de/A", b"https://xn--mnchen-3ya.de/A"),
        ("https://日本語。jp./", b"https://xn--wgv71a119e.jp./"),
        ("https://\uff11\uff19\uff12.0.2.1/", b"https://192.0.2.1/"),
    ],
)  # fmt: skip
def test_what_a_header_cannot_carry_is_encoded_as_a_browser_would(
    url: str, location: bytes
) -> None:
    assert check_destination(url) is None
    assert location_header(url) == location


#: Close to a URL, so that many of them pass and the others fail late.
words = st.sampled_from(
    ["http", "https", "HTTP", "//", "%2e", "good.com", "evil.com", "münchen.de", "::1", "&amp;"]
)
signs = st.sampled_from(":/\\@?#%.[] \t\r\n\x00\x85é\u2028'+-_a8\uff0f\u3002\U0001f600\ud800\u017f")
pieces = words | signs
near_urls = st.lists(pieces, max_size=12).map("".join) | st.text()
texts = near_urls | near_urls.map("https://good.com".__add__) | near_urls.map("http://".__add__)


def host_in_a_browser(url: bytes) -> bytes:
    """The host as WHATWG's URL parser finds it: lenient, where ours refuses."""
    text = re.sub(rb"[\t\r\n]", b"", url.strip(bytes(range(0x21)))).replace(b"\\", b"/")
    after_scheme = re.sub(rb"^https?:/*", b"", text, flags=re.IGNORECASE)
    authority = re.split(rb"[/?#]", after_scheme)[0]
    return re.sub(rb":[^\]]*$", b"", authority.rpartition(b"@")[2])


@given(texts)
@example("https://good.com\\@evil.com")
@example("https://good.com/@evil.com")
@example("https://é.good.com:80?@evil.com")
def test_a_location_is_printable_ascii_and_leads_where_the_url_says(text: str) -> None:
    if check_destination(text) is not None:
        return
    location = location_header(text)

    assert re.fullmatch(rb"[!-~]+", location)
    if text.isascii() and " " not in text:
        assert location == text.encode()
    seen = re.split(r"[/?#]", text.split("//", 1)[1])[0]
    host = host_in_a_browser(location)
    assert host
    assert b"@" not in seen.encode()
    assert b"%" not in host
    if seen.isascii():
        assert host == re.sub(r":\d*$", "", seen).encode()


@given(texts)
def test_every_destination_is_a_link_that_an_event_may_report(text: str) -> None:
    """Otherwise the click would be redirected and its event refused."""
    if check_destination(text) is None:
        assert check_link(text) is None
        assert text == text.strip()
