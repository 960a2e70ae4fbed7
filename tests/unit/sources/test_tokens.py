"""Tokens: hidden, authenticated, one spelling each, and readable for as long as the key is kept."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from ray_tracking.errors import InvalidEvent, SettingsError
from ray_tracking.sources import tokens
from ray_tracking.sources.token_packing import pack, unpack
from ray_tracking.sources.tokens import ClickToken, OpenToken, TokenKeys

NEW, OLD, STRANGE = "new" * 11, "old" * 11, "strange" * 5
KEYS = TokenKeys([NEW])
AT_S = 1_795_459_200
IDS = ("campaign_123", "lead_456", "email_789")
UUIDS = (
    "8f14e45f-ceea-467f-a830-5ad7d0b3c1f9",
    "c9f0f895-fb98-4b91-99d3-1a0e6f7c2d44",
    "45c48cce-2e2d-4fbd-aa1a-fc51c7c6ad26",
)
RANDOM = ("V1StGXR8_Z5jdHi6B-myT", "7fQkPzLw3xNc9RbYhUa0e", "Ks2MvT5oEgWq8DnJi4HyX")
URL = (
    "https://www.example.com/blog/better-emails"
    "?utm_source=newsletter&utm_medium=email&utm_campaign=spring_2026&x=1"
)[:109]

printable = st.characters(exclude_categories=["Cc", "Cs"])
ids = st.text(printable, min_size=1, max_size=128).filter(lambda text: not text.isspace())
ids = ids | st.uuids().map(str) | st.from_regex(r"[a-z]{1,8}[_-][0-9]{1,9}", fullmatch=True)
rests = st.text(printable.filter(lambda c: c != "\\"), max_size=300)
urls = st.builds("{}{}/{}".format, st.sampled_from(["http://", "HTTPS://"]), st.just("a.b"), rests)
urls = urls.filter(lambda url: url == url.strip())
times = st.integers(0, 2**32 - 1)
base64url = st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


@given(ids, ids, ids, times)
@example("a", "b", "\u202e \u2028.", 0)
@example(UUIDS[0].upper(), UUIDS[1][:-1] + "F", UUIDS[2] + UUIDS[0], 2**32 - 1)
def test_an_open_token_says_what_was_put_in(
    campaign_id: str, lead_id: str, email_id: str, minted_at_s: int
) -> None:
    token = KEYS.mint_open(campaign_id, lead_id, email_id, minted_at_s=minted_at_s)

    assert KEYS.read_open(token) == OpenToken(campaign_id, lead_id, email_id, minted_at_s)


@given(ids, ids, ids, urls, st.none() | ids, times)
def test_a_click_token_says_what_was_put_in_to_the_byte(
    campaign_id: str, lead_id: str, email_id: str, url: str, link_id: str | None, minted_at_s: int
) -> None:
    token = KEYS.mint_click(
        campaign_id, lead_id, email_id, url, link_id=link_id, minted_at_s=minted_at_s
    )

    expected = ClickToken(campaign_id, lead_id, email_id, url, link_id, minted_at_s)
    assert KEYS.read_click(token) == expected


@pytest.mark.parametrize("filler", ["a", "é", "\U0001f600", "0f14e45f-ceea-467f-a830-5ad7d0b3c1f9"])
def test_the_longest_ids_and_url_fit(filler: str) -> None:
    """A link full of UUIDs has more of them than the header can count."""
    longest = (filler * 128)[:128]
    url = ("https://a.b/" + filler * 8192)[:8192]

    token = KEYS.mint_click(longest, longest, longest, url, link_id=longest, minted_at_s=AT_S)

    expected = ClickToken(longest, longest, longest, url, longest, AT_S)
    assert KEYS.read_click(token) == expected


def test_the_longest_text_that_does_not_deflate_is_within_the_cap() -> None:
    """The cap on what is decoded must never refuse a token of our own."""
    scattered = "".join(chr(0x20000 + n * 7919 % 0xA000) for n in range(8192))
    longest = scattered[:128]
    url = ("https://a.b/" + scattered)[:8192]

    token = KEYS.mint_click(longest, longest, longest, url, link_id=longest, minted_at_s=AT_S)

    assert len(token) > 20_000
    assert KEYS.read_click(token) is not None


@given(ids, ids, ids, urls, times)
def test_a_token_of_one_kind_is_never_read_as_the_other(
    campaign_id: str, lead_id: str, email_id: str, url: str, minted_at_s: int
) -> None:
    opened = KEYS.mint_open(campaign_id, lead_id, email_id, minted_at_s=minted_at_s)
    clicked = KEYS.mint_click(campaign_id, lead_id, email_id, url, minted_at_s=minted_at_s)

    assert KEYS.read_click(opened) is None
    assert KEYS.read_open(clicked) is None


def test_changing_any_one_character_makes_a_token_worthless() -> None:
    """Also the last one, whose spare bits a lenient decoder would ignore."""
    for token in (
        KEYS.mint_open(*IDS, minted_at_s=AT_S),
        KEYS.mint_click(*IDS, URL, minted_at_s=AT_S),
    ):
        for place, right in enumerate(token):
            for wrong in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_":
                if wrong != right:
                    forged = token[:place] + wrong + token[place + 1 :]
                    assert KEYS.read_open(forged) is None
                    assert KEYS.read_click(forged) is None


@given(ids, ids, ids, st.data())
def test_changing_any_one_bit_makes_a_token_worthless(
    campaign_id: str, lead_id: str, email_id: str, data: st.DataObject
) -> None:
    token = KEYS.mint_open(campaign_id, lead_id, email_id, minted_at_s=AT_S)
    sealed = bytearray(urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    bit = data.draw(st.integers(0, len(sealed) * 8 - 1))
    sealed[bit // 8] ^= 1 << bit % 8

    assert KEYS.read_open(urlsafe_b64encode(sealed).decode().rstrip("=")) is None


@given(ids, urls)
def test_a_part_of_a_token_or_a_token_with_more_behind_it_is_worthless(
    an_id: str, url: str
) -> None:
    token = KEYS.mint_click(an_id, an_id, an_id, url, minted_at_s=AT_S)

    for length in range(len(token)):
        assert KEYS.read_click(token[:length]) is None
    for more in ("A", "AA", "AAA", "AAAA", "=", "==", "\n", " ", ".gif", "%3D", "é"):
        assert KEYS.read_click(token + more) is None
        assert KEYS.read_click(more + token) is None


@given(st.text() | st.text(base64url, max_size=200))
@example("")
@example("\x00")
@example("é" * 52)
@example("\ud800" * 52)
@example("A" * 1_000_000)
@example("A" * 52)
def test_garbage_is_no_token_and_no_error(garbage: str) -> None:
    assert KEYS.read_open(garbage) is None
    assert KEYS.read_click(garbage) is None


def test_what_is_too_long_is_not_even_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of long junk costs us its length check and nothing else."""
    monkeypatch.setattr(tokens, "_BASE64URL", None)

    assert KEYS.read_open("A" * 60_000) is None


def test_a_token_has_exactly_one_spelling() -> None:
    """Two spellings of one token would be two cache keys, and two log lines, for one hit."""
    token = KEYS.mint_open("campaign_1", "lead_4", "email_7", minted_at_s=AT_S)
    assert len(token) % 4 == 2, "this length leaves spare bits in the last character"
    same_bytes = [
        token[:-1] + last
        for last in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        if urlsafe_b64decode(token[:-1] + last + "==") == urlsafe_b64decode(token + "==")
    ]

    assert len(same_bytes) == 16
    assert [spelt for spelt in same_bytes if KEYS.read_open(spelt)] == [token]
    assert KEYS.read_open(token + "==") is None


def test_the_same_link_of_the_same_mail_is_the_same_url() -> None:
    assert KEYS.mint_open(*IDS, minted_at_s=AT_S) == KEYS.mint_open(*IDS, minted_at_s=AT_S)
    assert TokenKeys([NEW]).mint_click(*IDS, URL, minted_at_s=AT_S) == KEYS.mint_click(
        *IDS, URL, minted_at_s=AT_S
    )
    assert KEYS.mint_open(*IDS, minted_at_s=AT_S) != KEYS.mint_open(*IDS, minted_at_s=AT_S + 1)


def test_tokens_of_mails_that_are_out_stay_readable() -> None:
    """
    The format is a promise to every mail ever sent: these were minted by the first
    version. If this fails, the format changed and needs a new number.
    """
    assert KEYS.read_open(FIRST_OPEN) == OpenToken(*IDS, AT_S)
    assert KEYS.read_click(FIRST_CLICK) == ClickToken(*UUIDS, URL, "link_1", AT_S)


def test_every_key_of_the_ring_reads_and_the_first_one_signs() -> None:
    before, after = TokenKeys([OLD]), TokenKeys.parse(f"{NEW}, {OLD}")
    old_token = before.mint_open(*IDS, minted_at_s=AT_S)
    new_token = after.mint_open(*IDS, minted_at_s=AT_S)

    assert after.read_open(old_token) == after.read_open(new_token) == OpenToken(*IDS, AT_S)
    assert new_token == KEYS.mint_open(*IDS, minted_at_s=AT_S)
    assert before.read_open(new_token) is None


def test_a_key_that_left_the_ring_reads_no_more() -> None:
    token = TokenKeys([OLD]).mint_click(*IDS, URL, minted_at_s=AT_S)

    assert TokenKeys([NEW, STRANGE]).read_click(token) is None


@given(st.lists(st.text(printable, min_size=32, max_size=40), min_size=1, max_size=4, unique=True))
def test_after_any_rotation_old_tokens_are_read(secrets: list[str]) -> None:
    ring = TokenKeys(secrets)

    for secret in secrets:
        assert ring.read_open(TokenKeys([secret]).mint_open(*IDS, minted_at_s=AT_S))


@given(st.text(base64url, min_size=6, max_size=12), urls)
def test_a_token_hides_its_content(an_id: str, url: str) -> None:
    assume(an_id not in url)
    token = KEYS.mint_click(an_id, an_id, an_id, url, minted_at_s=AT_S)
    sealed = urlsafe_b64decode(token + "=" * (-len(token) % 4))

    assert an_id not in token
    assert an_id.encode() not in sealed
    assert b"a.b" not in sealed


@pytest.mark.parametrize(
    ("chars", "mint"),
    [
        (51, lambda: KEYS.mint_open(*IDS, minted_at_s=AT_S)),
        (70, lambda: KEYS.mint_click(*IDS, "https://example.com/pricing", minted_at_s=AT_S)),
        (99, lambda: KEYS.mint_click(*IDS, URL, minted_at_s=AT_S)),
        (98, lambda: KEYS.mint_open(*UUIDS, minted_at_s=AT_S)),
        (115, lambda: KEYS.mint_open(*RANDOM, minted_at_s=AT_S)),
    ],
)
def test_tokens_are_as_short_as_the_docstring_says(chars: int, mint: Callable[[], str]) -> None:
    assert len(mint()) <= chars


@pytest.mark.parametrize(
    "bad", ["", " ", "\u3000", "x" * 129, "a\nb", "a\x00", "a\x7f", "a\x85b", "a\x01", "\ud800"]
)
def test_an_id_that_an_event_could_not_have_is_refused_by_name(bad: str) -> None:
    with pytest.raises(InvalidEvent) as error:
        KEYS.mint_open("campaign_123", bad, "email_789", minted_at_s=AT_S)
    assert [field for field, _ in error.value.details] == ["leadId"]

    with pytest.raises(InvalidEvent) as error:
        KEYS.mint_click(bad, "l", "e", "ftp://x", link_id=bad, minted_at_s=AT_S)
    fields = [field for field, _ in error.value.details]
    assert fields == ["campaignId", "linkId", "linkUrl"]


def test_no_token_is_minted_for_a_destination_that_is_refused() -> None:
    with pytest.raises(InvalidEvent, match="linkUrl: must not carry a user name"):
        KEYS.mint_click(*IDS, "https://good@evil.com/", minted_at_s=AT_S)


def test_a_destination_is_judged_again_when_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that was tightened after the mail went out must hold for it as well."""
    token = KEYS.mint_click(*IDS, URL, minted_at_s=AT_S)
    monkeypatch.setattr(tokens, "check_destination", lambda url: "no longer")

    assert KEYS.read_click(token) is None


@pytest.mark.parametrize("minted_at_s", [-1, 2**32])
def test_a_time_that_does_not_fit_is_refused(minted_at_s: int) -> None:
    with pytest.raises(ValueError, match="seconds since 1970"):
        KEYS.mint_open(*IDS, minted_at_s=minted_at_s)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "EMAIL_ENCRYPTION_KEY: holds no key"),
        ("  ", "EMAIL_ENCRYPTION_KEY: holds no key"),
        ("secret", "key 1 of 1 has 6 characters, at least 32 are needed"),
        (f"{NEW},", "key 2 of 2 has 0 characters, at least 32 are needed"),
        (f"{NEW},short-secret", "key 2 of 2 has 12 characters, at least 32 are needed"),
    ],
)
def test_a_bad_key_is_named_in_one_line_without_showing_it(text: str, line: str) -> None:
    with pytest.raises(SettingsError) as error:
        TokenKeys.parse(text)

    assert line in str(error.value)
    assert "\n" not in str(error.value)
    assert "secret" not in str(error.value)


def test_a_key_of_bytes_that_are_no_text_works() -> None:
    """Python hands over undecodable bytes of the environment as lone surrogates."""
    ring = TokenKeys(["\udcff" * 32])

    assert ring.read_open(ring.mint_open(*IDS, minted_at_s=AT_S)) == OpenToken(*IDS, AT_S)


def test_the_keys_do_not_show_in_a_representation() -> None:
    assert NEW not in repr(KEYS)
    assert NEW not in json.dumps(KEYS, default=repr)


@given(st.binary(max_size=100))
@example(b"")
@example(b"\x80\x00\x00\x00\x00")
@example(b"\x01\x00\x00\x00\x00\x01")
@example(b"\x01\x00\x00\x00\x00" + b"u" * 16)
@example(b"\x80\x00\x00\x00\x00\x03\x00trailing")
@example(b"\x00\x00\x00\x00\x00\xff")
def test_bytes_that_were_not_packed_by_us_are_none_or_fields_but_never_an_error(
    packed: bytes,
) -> None:
    """Only reached with a right key: what a later version of us may have sealed."""
    assert unpack(packed, max_text_bytes=1000) is None or packed


def test_a_text_larger_than_any_of_ours_is_not_inflated() -> None:
    packed = pack(["a" * 2000], AT_S)

    assert unpack(packed, max_text_bytes=1999) is None
    assert unpack(packed, max_text_bytes=2000) == (AT_S, ["a" * 2000])


FIRST_OPEN = "1n7WPFpvzJvt-fiuswbOmH4U4RkkVw2UlVVzIbYSID1njOYLDXM"
FIRST_CLICK = (
    "FAsYknwI3YsXWu0u-wUhXMwT7mOHhFR0R3joDvaBSSlFBuHImYSEq_edpDznXAPsaNWpdt9eOfd5vuAq"
    "gm9qG6C0IZ_CB5IKzGEo5ahecbMeRQ09rirdQsGQsfCDYUat-Dvv2eu4XfgGMvp1mbc062CM"
)
