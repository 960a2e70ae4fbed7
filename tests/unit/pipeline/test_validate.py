"""Validation: each type's fields, each way to be wrong, and a word that helps about each."""

from __future__ import annotations

import json
import string
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_tracking.errors import InvalidEvent, MalformedRequest
from ray_tracking.events import HIGH_PRIORITY_TYPES, Event, EventType
from ray_tracking.pipeline.rows import decode_row, encode_row, event_data
from ray_tracking.pipeline.validate import validate_data, validate_item
from tests.unit.pipeline.samples import (
    COMMON_OPTIONAL,
    NOW_MS,
    NOW_S,
    OWN_OPTIONAL,
    REQUIRED,
    accepted,
    item,
    minted,
    valid,
    valid_items,
)

TYPES = list(EventType)
every_type = pytest.mark.parametrize("event_type", TYPES)
OPEN, CLICK, REPLY = EventType.EMAIL_OPEN, EventType.LINK_CLICK, EventType.EMAIL_REPLY
BOUNCE, HEALTH = EventType.EMAIL_BOUNCE, EventType.ACCOUNT_HEALTH_UPDATE
STATUS = EventType.CAMPAIGN_STATUS_CHANGE

FIELDS = {kind: REQUIRED[kind] | OWN_OPTIONAL[kind] | COMMON_OPTIONAL for kind in TYPES}
ALL_FIELDS = sorted(set().union(*FIELDS.values()))
IDENTIFIERS = [
    (event_type, name)
    for event_type in TYPES
    for name in FIELDS[event_type]
    if name.endswith("Id") and name != "messageId"
]


def wrong(whole: Any, **options: Any) -> dict[str, str]:
    """What is wrong with an item, field by field."""
    with pytest.raises(InvalidEvent) as refused:
        validate_item(whole, now_s=NOW_S, **options)
    details = refused.value.details
    assert details
    assert all(type(name) is str and type(message) is str for name, message in details)
    return dict(details)


def wrong_field(event_type: str, **fields: Any) -> dict[str, str]:
    return wrong(item(event_type, **fields))


# -- the table of the contract -----------------------------------------------


@every_type
def test_the_required_fields_are_enough(event_type: EventType) -> None:
    event = valid(event_type)

    assert event.type is event_type
    assert event.data == REQUIRED[event_type]


@every_type
def test_every_optional_field_is_kept(event_type: EventType) -> None:
    whole = FIELDS[event_type]

    assert valid(event_type, **whole).data == whole


@pytest.mark.parametrize(
    ("event_type", "name"), [(kind, name) for kind in TYPES for name in REQUIRED[kind]]
)
def test_a_required_field_that_is_not_there_is_named(event_type: EventType, name: str) -> None:
    without = {key: value for key, value in REQUIRED[event_type].items() if key != name}

    assert wrong({"eventType": event_type, "eventData": without}) == {name: "is required"}
    assert list(wrong_field(event_type, **{name: None})) == [name]


@every_type
def test_all_that_is_wrong_is_said_at_once(event_type: EventType) -> None:
    everything = dict.fromkeys(REQUIRED[event_type])

    assert wrong_field(event_type, **everything).keys() == everything.keys()


@every_type
def test_a_null_is_the_same_as_no_field(event_type: EventType) -> None:
    optional = COMMON_OPTIONAL | OWN_OPTIONAL[event_type]
    nulls = dict.fromkeys(optional.keys() - REQUIRED[event_type].keys())

    assert valid(event_type, **nulls).data == REQUIRED[event_type]


@pytest.mark.parametrize(
    ("event_type", "name"),
    [
        (event_type, name)
        for event_type in TYPES
        for name in ALL_FIELDS
        if name not in FIELDS[event_type]
    ],
)
def test_a_field_of_another_type_is_not_taken(event_type: EventType, name: str) -> None:
    assert "is not a field of" in wrong_field(event_type, **{name: "x"})[name]


@pytest.mark.parametrize(
    ("whole", "field"),
    [
        (item(OPEN, openCount=1), "openCount"),
        (item(OPEN, deviceInfo={"model": "X"}), "deviceInfo.model"),
        (item(OPEN, locationInfo={"zip": "75001"}), "locationInfo.zip"),
        (item(OPEN) | {"campaignId": "c"}, "campaignId"),
        (item(OPEN) | {"metadata": {"source": "crm"}}, "metadata.source"),
        (item(OPEN, **{"campaign.id": 1}), "campaign.id"),
    ],
)
def test_an_unknown_field_is_named_and_pointed_to_custom_data(whole: Any, field: str) -> None:
    """Dropping it silently would look as if it had been stored."""
    (name, message) = next(iter(wrong(whole).items()))

    assert name == field
    assert "is not a field of" in message
    assert "put your own data into customData" in message


@pytest.mark.parametrize("name", sorted(COMMON_OPTIONAL.keys() | REQUIRED[CLICK].keys()))
@pytest.mark.parametrize("value", [7, 1.5, True, ["x"], []], ids=repr)
def test_a_value_of_the_wrong_type_is_refused(name: str, value: Any) -> None:
    assert wrong_field(CLICK, **{name: value}).keys() == {name}


@pytest.mark.parametrize("part", ["deviceInfo", "locationInfo"])
def test_nulls_inside_objects_are_dropped_and_texts_cleaned(part: str) -> None:
    first, second = list(COMMON_OPTIONAL[part])[:2]

    assert valid(OPEN, **{part: {first: " a\x00b ", second: None}}).data[part] == {first: "ab"}
    assert wrong_field(OPEN, **{part: {first: 5}}) == {f"{part}.{first}": "must be a string"}


# -- envelope ----------------------------------------------------------------


@pytest.mark.parametrize("whole", [None, 7, "EMAIL_OPEN", [], [item(OPEN)], True])
def test_an_item_that_is_no_object_says_what_one_is(whole: Any) -> None:
    assert wrong(whole) == {"": "an event must be an object with eventType and eventData"}


@pytest.mark.parametrize("name", ["email_open", "", "OPEN", None, 7, ["EMAIL_OPEN"], {}, "x" * 999])
def test_an_unknown_type_is_answered_with_the_known_ones(name: Any) -> None:
    message = wrong({"eventType": name, "eventData": {}})["eventType"]

    assert message.startswith(repr(name)[:80])
    assert message.endswith(" is not one of " + ", ".join(TYPES))
    assert len(message) < 300


def test_a_type_that_is_not_there_is_required() -> None:
    assert wrong({"eventData": {}})["eventType"].startswith("is required, one of EMAIL_SENT")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "is required"),
        ({"eventData": None}, "is required"),
        ({"data": [1]}, "must be an object"),
    ],
)
def test_event_data_must_be_an_object(data: dict[str, Any], message: str) -> None:
    assert wrong({"eventType": OPEN} | data) == {"eventData": message}


def test_data_is_another_name_of_event_data_but_not_beside_it() -> None:
    data = REQUIRED[OPEN]

    assert validate_item({"eventType": OPEN, "data": data}, now_s=NOW_S).data == data
    assert "data" in wrong({"eventType": OPEN, "data": data, "eventData": data})


def test_a_line_that_was_not_json_is_refused_in_its_own_place() -> None:
    assert wrong(MalformedRequest("not JSON at line 1")) == {"": "not JSON at line 1"}


@every_type
@pytest.mark.parametrize("metadata", [None, {}, {"priority": None}, {"priority": "normal"}])
def test_bounces_status_and_health_are_high_without_asking(
    event_type: EventType, metadata: Any
) -> None:
    event = validate_item(item(event_type) | {"metadata": metadata}, now_s=NOW_S)

    assert event.high is (event_type in HIGH_PRIORITY_TYPES)
    assert {BOUNCE, STATUS, HEALTH} == HIGH_PRIORITY_TYPES


@every_type
def test_any_event_is_high_when_its_metadata_say_so(event_type: EventType) -> None:
    assert validate_item(item(event_type) | {"metadata": {"priority": "high"}}, now_s=NOW_S).high


@pytest.mark.parametrize(
    ("metadata", "field"),
    [
        ({"priority": "urgent"}, "metadata.priority"),
        ({"priority": True}, "metadata.priority"),
        ("high", "metadata"),
        ([], "metadata"),
        (0, "metadata"),
    ],
)
def test_wrong_metadata_are_refused(metadata: Any, field: str) -> None:
    assert wrong(item(OPEN) | {"metadata": metadata}).keys() == {field}


# -- identifiers and text ----------------------------------------------------


@pytest.mark.parametrize(("event_type", "name"), IDENTIFIERS)
def test_an_identifier_has_1_to_128_characters_and_none_of_control(
    event_type: EventType, name: str
) -> None:
    assert valid(event_type, **{name: f"\n {'é' * 128}\t"}).data[name] == "é" * 128
    assert wrong_field(event_type, **{name: "é" * 129}) == {name: "is longer than 128 characters"}
    assert wrong_field(event_type, **{name: " \t "}) == {name: "must not be empty"}
    for control in "\x00\n\x1f\x7f\x85\x9f":
        refused = wrong_field(event_type, **{name: f"a{control}b"})
        assert refused == {name: "must not contain control characters"}


def test_an_identifier_may_hold_what_is_unprintable_and_no_control_character() -> None:
    """A zero-width joiner is part of names in Persian and of many emoji."""
    assert valid(OPEN, leadId="a\u200db\u00a0c").data["leadId"] == "a\u200db\u00a0c"


@pytest.mark.parametrize(
    ("event_type", "name"),
    [
        (OPEN, "userAgent"),
        (REPLY, "messageId"),
        (REPLY, "inReplyTo"),
        (REPLY, "subject"),
        (BOUNCE, "bounceReason"),
        (BOUNCE, "smtpCode"),
        (STATUS, "newStatus"),
        (STATUS, "oldStatus"),
        (STATUS, "reason"),
        (HEALTH, "status"),
    ],
)
def test_control_characters_are_stripped_from_free_text(event_type: EventType, name: str) -> None:
    """NUL is the one character that Postgres cannot store."""
    dirty = "\x1b \x00a\x00\x1b[31mb\r\n\x85 "

    assert valid(event_type, **{name: dirty}).data[name] == "a[31mb"
    assert valid(event_type, **{name: "é" * 2048}).data[name] == "é" * 2048
    assert wrong_field(event_type, **{name: "é" * 2049}).keys() == {name}


def test_a_text_that_must_not_be_empty_is_not_empty_after_stripping_either() -> None:
    assert wrong_field(STATUS, newStatus="\x00\x1b") == {"newStatus": "must not be empty"}


@pytest.mark.parametrize("name", ["leadId", "userAgent", "linkUrl", "timestamp", "ipAddress"])
def test_a_lone_surrogate_is_refused(name: str) -> None:
    """JSON bodies cannot bring one, Python callers can."""
    assert wrong_field(CLICK, **{name: "a\ud800b"})


@pytest.mark.parametrize(
    "whole",
    [
        item(OPEN, **{"a\ud800": 1}),
        item(OPEN, deviceInfo={"a\ud800": 1}),
        item(OPEN) | {"a\ud800": 1},
        item(OPEN) | {"metadata": {"a\ud800": 1}},
        item(OPEN) | {"eventType": "a\ud800"},
    ],
)
def test_a_name_with_a_lone_surrogate_is_refused_in_words_that_can_be_sent(whole: Any) -> None:
    for name, message in wrong(whole).items():
        assert f"{name}: {message}".encode()


# -- timestamps --------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "occurred_us"),
    [
        ("2026-11-23T19:00:00Z", 1795460400000000),
        ("2026-11-23T19:00:00.000001Z", 1795460400000001),
        ("2026-11-23T19:00:00,5Z", 1795460400500000),
        ("2026-11-23T20:00:00+01:00", 1795460400000000),
        ("2026-11-23T13:15:00-05:45", 1795460400000000),
        ("2026-11-23 19:00:00+00:00", 1795460400000000),
        ("2026-11-23t19:00Z", 1795460400000000),
        ("2026-11-23T19:00:00z", 1795460400000000),
        ("2026-11-23t19:00:00.5z", 1795460400500000),
        ("2026-11-23T19Z", 1795460400000000),
        ("20261123T190000Z", 1795460400000000),
        ("20261123T190000+0000", 1795460400000000),
        ("2026-W48-1T19:00:00Z", 1795460400000000),
        ("1969-12-31T23:59:59.999999Z", -1),
        (" 2026-11-23T19:00:00Z\n", 1795460400000000),
        ("0001-01-01T00:00:00Z", -62135596800000000),
    ],
)
def test_iso_8601_is_read_to_the_microsecond(text: str, occurred_us: int) -> None:
    assert valid(OPEN, timestamp=text).occurred_us == occurred_us


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-23",
        "2026-11-23T19:00:00",
        "2026-11-23 19:00",
        "20261123T190000",
        "19:00:00Z",
        "2026-11-23Z",
    ],
)
def test_a_moment_without_offset_or_time_is_no_moment(text: str) -> None:
    assert wrong_field(OPEN, timestamp=text).keys() == {"timestamp"}


@pytest.mark.parametrize(
    "text",
    [
        "yesterday",
        "1795460400",
        "2026-02-30T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-11-23T24:00:01Z",
        "2026-11-23T23:59:60Z",
        "2026-11-23T19:00:00+24:00",
        "2026-11-23x19:00:00Z",
        "2026-11-23🕖19:00:00Z",
        "2026-11-23T19:00:00\x00Z",
        "2026-11-23T19:00:00.Z",
        "2026-11-23T19:00:00,+00:00",
        "2026-11-23T19:00:Z",
        "2026-11-23T19:Z",
        "2026-11-23T19:00:00 Z",
        "2026-11-23T19:00:00 +00:00",
        "2026-11-23 19:00:00 +00:00",
        "2026-11-23T19:00:00zz",
        "2026-11-23T19:00:00+00:00z",
        "z",
        "٢٠٢٦-11-23T19:00:00Z",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+00:01",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
        "9999-12-31T23:59:59.999999Z",
        "+12026-11-23T19:00:00Z",
        "Z" * 64,
        "Z" * 65,
        "",
    ],
)
def test_what_is_no_moment_or_none_that_can_be_stored_is_refused(text: str) -> None:
    """A moment before the year 1 in UTC can be written to Postgres, but not read again."""
    assert wrong_field(OPEN, timestamp=text).keys() == {"timestamp"}


def test_an_event_may_be_five_minutes_ahead_and_no_more() -> None:
    """Clocks differ; an event of tomorrow is a mistake."""
    assert valid(OPEN, timestamp="2026-11-23T19:25:00Z")
    for text in (
        "2026-11-23T19:25:00.000001Z",
        "2026-11-23T20:20:00Z",
        "2026-11-23T18:26:00-01:00",
    ):
        assert wrong_field(OPEN, timestamp=text) == {"timestamp": "is more than 5 minutes ahead"}


# -- links and addresses -----------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://a",
        "HTTPS://EXAMPLE.com/%00?q=<script>#x",
        "https://münchen.de/ä ö",
        "https://user@[::1]:8080/",
        "  https://example.com  ",
        "https://x/" + "a" * 8182,
    ],
)
def test_a_link_is_kept_to_the_byte(url: str) -> None:
    assert valid(CLICK, linkUrl=url).data["linkUrl"] == url.strip()


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "data:text/html,x",
        "file:///etc/passwd",
        "ftp://example.com",
        "//example.com",
        "/path",
        "example.com",
        "https:example.com",
        "https:/example.com",
        "https://",
        "https:///path",
        "https://?q",
        "https://\\evil",
        "https://a\nb",
        "https://a\x00",
        "java\nscript:x",
        "https://x/" + "a" * 8183,
        "",
    ],
)
def test_what_is_not_an_absolute_web_link_is_refused(url: str) -> None:
    assert wrong_field(CLICK, linkUrl=url).keys() == {"linkUrl"}


@pytest.mark.parametrize(
    "address",
    ["203.0.113.9", "0.0.0.0", "2001:db8::1", "2001:DB8:0:0:0:0:0:1", "::", "::ffff:192.0.2.1"],
)
def test_an_address_is_ipv4_or_ipv6(address: str) -> None:
    assert valid(OPEN, ipAddress=f" {address} ").data["ipAddress"] == address


@pytest.mark.parametrize(
    "address",
    [
        "",
        "localhost",
        "1.2.3",
        "1.2.3.256",
        "01.2.3.4",
        "1.2.3.4/32",
        "1.2.3.4:80",
        "[::1]",
        "fe80::1%eth0",
        "::1%",
        "::ffff:1.2.3.04",
        "\N{ARABIC-INDIC DIGIT ONE}.2.3.4",
        "16909060",
        "1.2.3.4, 5.6.7.8",
        "1:" * 500,
    ],
)
def test_an_address_that_postgres_would_refuse_is_refused_here(address: str) -> None:
    refused = wrong_field(OPEN, ipAddress=address)

    assert refused == {"ipAddress": "is not an IPv4 or IPv6 address"}


# -- customData --------------------------------------------------------------


def test_custom_data_have_eight_levels_and_no_more() -> None:
    deepest: Any = {"a": {"b": [{"c": {"d": [{"e": {"f": 1}}]}}]}}
    assert valid(OPEN, customData=deepest).data["customData"] == deepest
    refused = wrong_field(OPEN, customData={"x": deepest})

    assert refused == {"customData": "is nested deeper than 8 levels"}


def test_custom_data_have_16_kib_as_utf_8_and_no_more() -> None:
    """Measured as it is stored: compact, and not in characters."""
    fits = {"k": "é" * ((16 * 1024 - len('{"k":""}')) // 2)}
    assert len(json.dumps(fits, ensure_ascii=False, separators=(",", ":")).encode()) == 16 * 1024

    assert valid(OPEN, customData=fits).data["customData"] == fits
    refused = wrong_field(OPEN, customData={"k": fits["k"] + "x"})
    assert refused == {"customData": "has 16385 bytes; the limit is 16384"}


@pytest.mark.parametrize(
    "value",
    [None, True, False, 0, -1, 10**18, 10**30, -(10**300), 10**4000, 0.1, 1e308, "", [], {}, [[]]],
    ids=lambda value: f"{value!r:.9}",
)
def test_custom_data_may_be_any_json_value(value: Any) -> None:
    custom = {"k": value, "": [value]}

    assert valid(OPEN, customData=custom).data["customData"] == custom


@pytest.mark.parametrize(
    "value",
    [
        float("inf"),
        float("-inf"),
        float("nan"),
        [1e300 * 1e300],
        b"x",
        {1: 2},
        {1},
        object(),
        10**5000,
    ],
    ids=lambda value: f"{type(value).__name__}",
)
def test_what_json_cannot_say_is_refused_in_custom_data(value: Any) -> None:
    assert wrong_field(OPEN, customData={"k": value}).keys() == {"customData"}


@pytest.mark.parametrize("custom", [[], "x", 7, True, [{}]])
def test_custom_data_are_an_object(custom: Any) -> None:
    assert wrong_field(OPEN, customData=custom) == {"customData": "must be an object"}


def test_custom_data_lose_control_characters_and_nothing_else() -> None:
    cleaned = valid(OPEN, customData={"k": [" a\x00\ud800b "], "\u200b": "é"}).data["customData"]

    assert cleaned == {"k": [" ab "], "\u200b": "é"}


@pytest.mark.parametrize("key", ["\x00", "a\nb", "\x9f", "\ud800"])
def test_a_key_of_custom_data_without_its_control_characters_might_be_another(key: str) -> None:
    assert wrong_field(OPEN, customData={"a": [{key: 1}]}).keys() == {"customData"}


def test_what_was_sent_is_not_changed() -> None:
    """The caller of the Python client still owns it."""
    whole = item(OPEN, customData={"k": ["\x00"]}, deviceInfo={"os": None}, userAgent=" x ")
    before = json.dumps(whole)
    validate_item(whole, now_s=NOW_S)

    assert json.dumps(whole) == before


# -- fields of one type ------------------------------------------------------


@pytest.mark.parametrize("score", [0, 100, 0.0, 99.99, 100.0])
def test_a_health_score_is_a_number_from_0_to_100(score: float) -> None:
    assert valid(HEALTH, healthScore=score).data["healthScore"] == score


@pytest.mark.parametrize(
    "score", [-0.01, 100.01, -1, 101, True, "50", float("nan"), float("inf"), 10**400, [50]]
)
def test_another_health_score_is_refused(score: Any) -> None:
    assert wrong_field(HEALTH, healthScore=score).keys() == {"healthScore"}


@pytest.mark.parametrize("code", [100, 550, 999, "550", "5.1.1", "550 5.1.1 no such user"])
def test_an_smtp_code_is_a_number_or_text(code: Any) -> None:
    kept = valid(BOUNCE, smtpCode=code).data["smtpCode"]

    assert kept == code
    assert type(kept) is type(code)


@pytest.mark.parametrize("code", [99, 1000, -550, 550.0, True, ["550"], {"code": 550}, 10**30])
def test_another_smtp_code_is_refused_once(code: Any) -> None:
    expected = {"smtpCode": 'must be a code such as 550 or "5.1.1"'}

    assert wrong_field(BOUNCE, smtpCode=code) == expected


@pytest.mark.parametrize("kind", ["Hard", "", "bounced", 1, True])
def test_an_unknown_kind_of_bounce_is_answered_with_the_known_ones(kind: Any) -> None:
    expected = "must be 'hard', 'soft', 'complaint' or 'suppression'"

    assert wrong_field(BOUNCE, bounceType=kind) == {"bounceType": expected}


@pytest.mark.parametrize("value", ["true", 1, 0, "yes", []])
def test_auto_reply_is_true_or_false_and_nothing_like_it(value: Any) -> None:
    assert wrong_field(REPLY, autoReply=value) == {"autoReply": "must be true or false"}


# -- the users' own rules ----------------------------------------------------


def test_a_rule_sees_clean_data_and_lets_pass_what_it_does_not_mind() -> None:
    seen: list[tuple[EventType, Mapping[str, Any]]] = []

    def look(event_type: EventType, data: Mapping[str, Any]) -> None:
        seen.append((event_type, dict(data)))

    event = validate_item(item(OPEN, userAgent=" x\x00 "), now_s=NOW_S, rules=[look])

    assert seen == [(OPEN, event.data)]
    assert seen[0][1]["userAgent"] == "x"


def test_every_rule_is_heard() -> None:
    def says_text(event_type: EventType, data: Mapping[str, Any]) -> str:
        return "not on Sundays"

    def names_a_field(event_type: EventType, data: Mapping[str, Any]) -> tuple[str, str]:
        return "leadId", "is on the list"

    def raises(event_type: EventType, data: Mapping[str, Any]) -> None:
        raise ValueError("no internal addresses")

    with pytest.raises(InvalidEvent) as refused:
        validate_item(item(OPEN), now_s=NOW_S, rules=[says_text, names_a_field, raises])
    assert refused.value.details == [
        ("eventData", "not on Sundays"),
        ("leadId", "is on the list"),
        ("eventData", "no internal addresses"),
    ]


@pytest.mark.parametrize("error", [KeyError("x"), RecursionError(), ValueError(), OSError()])
def test_a_rule_that_fails_refuses_the_event_and_tells_no_secrets(error: Exception) -> None:
    """Letting it through would be the silent choice, and a 500 would be retried for ever."""

    def broken_rule(event_type: EventType, data: Mapping[str, Any]) -> None:
        raise error

    (message,) = wrong(item(OPEN), rules=[broken_rule]).values()
    assert "broken_rule" in message


@pytest.mark.parametrize("junk", [True, 0, [], (), ("a",), ("a", 1), ("a", "b", "c"), {"a": "b"}])
def test_a_rule_that_answers_something_else_has_failed(junk: Any) -> None:
    def odd_rule(event_type: EventType, data: Mapping[str, Any]) -> Any:
        return junk

    (message,) = wrong(item(OPEN), rules=[odd_rule]).values()
    assert message == f"the rule odd_rule failed: it answered {type(junk).__name__}"


def test_rules_are_not_asked_about_what_is_not_valid() -> None:
    def never(event_type: EventType, data: Mapping[str, Any]) -> None:
        raise AssertionError("asked")

    assert wrong(item(OPEN, ipAddress="x"), rules=[never]).keys() == {"ipAddress"}


# -- anything at all ---------------------------------------------------------

_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.text(string.printable + "\x00\ud800\u2028", max_size=8)
    | st.sampled_from(["EMAIL_OPEN", "high", "2026-11-23T19:00:00Z", "hard", 10**400, -(10**4000)])
)
_ENVELOPE = ["eventType", "eventData", "data", "metadata", "priority"]
_NAMES = st.sampled_from([*_ENVELOPE, "\ud800", *ALL_FIELDS])
anything = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(_NAMES | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(anything)
def test_any_value_is_an_event_or_an_invalid_one(value: Any) -> None:
    """Nothing that somebody sends is a 500."""
    check(value)


@given(st.sampled_from(TYPES), st.dictionaries(_NAMES, anything, max_size=5), anything)
def test_an_event_with_any_values_is_valid_or_not(
    event_type: EventType, fields: dict[str, Any], metadata: Any
) -> None:
    """The same, from close by: one field after the other is replaced by anything."""
    for name, value in fields.items():
        check(item(event_type, **{name: value}))
    check(item(event_type) | {"metadata": metadata})
    check(item(event_type) | fields)


def check(value: Any) -> None:
    try:
        event = validate_item(value, now_s=NOW_S)
    except InvalidEvent as error:
        details = error.details
        json.dumps(details, ensure_ascii=False).encode()
    else:
        assert isinstance(event, Event)
        assert encode_row(event, minted(1), NOW_MS)
        return
    assert details
    assert all(message and len(message) < 400 for _, message in details)


@given(valid_items())
def test_every_valid_event_comes_back_from_its_row(whole: dict[str, Any]) -> None:
    event = validate_item(whole, now_s=NOW_S)

    assert event_data(decode_row(encode_row(event, minted(1), NOW_MS))) == accepted(event)


@given(valid_items())
def test_what_was_accepted_is_accepted_again_as_the_same(whole: dict[str, Any]) -> None:
    """Replay and redrive read events that were valid once."""
    event = validate_item(whole, now_s=NOW_S)

    again = validate_data(event.type, accepted(event), high=event.high, now_s=NOW_S)
    assert accepted(again) == accepted(event)
