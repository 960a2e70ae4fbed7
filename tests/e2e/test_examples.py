"""The scripts in examples/ do what they say, against the running service."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.service import Answer, Service, eventually, free_port
from tests.support.events import item

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

EXAMPLES = Path(__file__).parents[2] / "examples"
ROWS_WITHIN_S = 10.0
GIF = b"GIF89a"

DELIVERY_REPORT = """\
From: mailer-daemon@theirs.example
To: sales@ours.example
Message-ID: <report-{number}@theirs.example>
Subject: Undelivered mail
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary=B

--B
Content-Type: text/plain

It did not work.
--B
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.theirs.example

Final-Recipient: rfc822; bob@theirs.example
Action: {action}
Status: {status}
Diagnostic-Code: smtp; 550 {status} as the server said

--B
Content-Type: text/rfc822-headers

Message-ID: <bounces/bob/mail-{number}@ours.example>
Subject: Offer
--B--
"""

COMPLAINT = """\
From: feedback@theirs.example
Message-ID: <complaint-1@theirs.example>
MIME-Version: 1.0
Content-Type: multipart/report; report-type=feedback-report; boundary=B

--B
Content-Type: text/plain

Somebody pressed the button.
--B
Content-Type: message/feedback-report

Feedback-Type: abuse
User-Agent: their-loop/1.0
Version: 1

--B
Content-Type: message/rfc822

Message-ID: <bounces/eve/mail-9@ours.example>
Subject: Offer

Buy.
--B--
"""


def run(
    name: str, *arguments: str, feed: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        input=feed, capture_output=True, text=True, timeout=60, check=False,
        env={"PATH": os.environ["PATH"], **environment},  # noqa: TID251
    )  # fmt: skip


def nowhere() -> tuple[str, ...]:
    """Options that lead where nobody listens."""
    return ("--url", f"http://127.0.0.1:{free_port()}", "--patience", "0.2")


def rows(service: Service, campaign_id: str, count: int) -> list[Any]:
    query = "SELECT * FROM events WHERE campaign_id = $1 ORDER BY received_at, log_index"

    def look() -> list[Any]:
        found = service.sql(query, campaign_id)
        return found if len(found) >= count else []

    found = eventually(look, ROWS_WITHIN_S, f"{count} rows of {campaign_id}")
    assert len(found) == count
    return found


@contextmanager
def serving(name: str, service: Service, *arguments: str) -> Iterator[str]:
    """A web service of the examples, until the end of the block, where it ends cleanly."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, str(EXAMPLES / name), *arguments,
         "--url", service.url, "--port", str(port)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    base = f"http://127.0.0.1:{port}"
    try:
        eventually(lambda: answers(base), 20, f"{name} answers")
        yield base
        process.send_signal(signal.SIGTERM)
        printed, _ = process.communicate(timeout=20)
        assert process.returncode == 0, printed
        assert "not recorded" not in printed
    finally:
        process.kill()
        process.wait()


def answers(base: str) -> bool:
    try:
        return get(base + "/").status == 404
    except OSError:
        return False


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any) -> None:
        return None


_opener = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({}))


def get(url: str, method: str = "GET") -> Answer:
    request = urllib.request.Request(url, method=method, headers={"User-Agent": "a mail client"})
    try:
        with _opener.open(request, timeout=10) as answer:
            return Answer(answer.status, answer.read(), dict(answer.headers.items()))
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.read(), dict(error.headers.items()))


def test_the_pixel_service_answers_an_image_and_records_an_open(service: Service) -> None:
    with serving("pixel_service.py", service) as base:
        for method in ("HEAD", "GET", "GET"):
            answer = get(f"{base}/o/pixels/ada/mail-1.gif", method)
            assert (answer.status, answer.headers["Content-Type"]) == (200, "image/gif")
        assert answer.body.startswith(GIF)
        assert "no-store" in answer.headers["Cache-Control"]
    (row,) = rows(service, "pixels", 1)
    assert (row["event_type"], row["lead_id"], row["email_id"]) == ("EMAIL_OPEN", "ada", "mail-1")
    assert row["user_agent"] == "a mail client"


def test_the_click_service_leads_on_and_never_elsewhere(service: Service, tmp_path: Path) -> None:
    target = "https://shop.example/offer?a=1&b=%2F#now"
    links = tmp_path / "links.json"
    links.write_text(json.dumps({"offer": target}))
    with serving("click_service.py", service, str(links)) as base:
        answer = get(f"{base}/l/offer?c=clicks&l=ada&m=mail-1")
        assert (answer.status, answer.headers["Location"]) == (302, target)
        assert answer.headers["Cache-Control"] == "no-store"
        assert get(f"{base}/l/https://evil.example?c=clicks&l=ada&m=mail-1").status == 404
    (row,) = rows(service, "clicks", 1)
    assert (row["event_type"], row["link_url"]) == ("LINK_CLICK", target)


def mail(directory: Path, name: str, **headers: str) -> None:
    message = EmailMessage()
    message["From"] = "Ada <ada@theirs.example>"
    message["Message-ID"] = f"<{name}@theirs.example>"
    message["Date"] = "Sun, 01 Nov 2026 09:00:00 +0000"
    for header, value in headers.items():
        del message[header.replace("_", "-")]
        message[header.replace("_", "-")] = value
    message.set_content("Yes, please.")
    (directory / "new" / name).write_bytes(message.as_bytes())


def test_the_reply_watcher_reports_replies_and_nothing_else(
    service: Service, tmp_path: Path
) -> None:
    (tmp_path / "new").mkdir()
    ours = "<replies/ada/mail-1@ours.example>"
    mail(tmp_path, "1-reply", In_Reply_To=ours, Subject="Re: Offer")
    mail(tmp_path, "2-thread", In_Reply_To="<x@theirs.example>", References=f"{ours} <y@z>",
         Auto_Submitted="auto-replied")  # fmt: skip
    mail(tmp_path, "3-own", In_Reply_To=ours, From="Sales <Sales@ours.example>")
    mail(tmp_path, "4-stranger", In_Reply_To="<x@theirs.example>")
    arguments = (str(tmp_path), "--from-us", "sales@ours.example", "--once")

    away = run("reply_watcher.py", *arguments, *nowhere())
    assert "does not answer" in away.stdout
    assert (tmp_path / "new" / "1-reply").exists()
    done = run("reply_watcher.py", *arguments, "--url", service.url)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "new").iterdir()) == []
    # Killed before the move: what is read again is known.
    (tmp_path / "cur" / "1-reply:2,").rename(tmp_path / "new" / "1-reply")
    run("reply_watcher.py", *arguments, "--url", service.url)

    found = rows(service, "replies", 2)
    automatic = [json.loads(row["details"])["autoReply"] for row in found]
    assert automatic == [False, True]
    assert json.loads(found[0]["details"])["subject"] == "Re: Offer"


def test_the_reply_watcher_says_that_it_has_no_maildir(tmp_path: Path) -> None:
    done = run("reply_watcher.py", str(tmp_path / "elsewhere"), "--once")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("is no Maildir: it has no directory new")


@pytest.mark.parametrize(
    ("number", "action", "status", "kind"),
    [(1, "failed", "5.1.1", "hard"), (2, "failed", "5.2.2", "soft"), (3, "delayed", "4.4.1", None)],
)
def test_the_bounce_handler_tells_hard_from_soft(
    service: Service, number: int, action: str, status: str, kind: str | None
) -> None:
    report = DELIVERY_REPORT.format(number=number, action=action, status=status)
    for _ in range(2 if number == 1 else 1):  # as a mail server may
        done = run("bounce_handler.py", "--url", service.url, feed=report)
        assert done.returncode == 0, done.stderr
    assert (f"{kind} bounce of bob in bounces" in done.stdout) == (kind is not None)
    if kind is not None:
        query = """
            SELECT bounce_type, details FROM events
            WHERE campaign_id = 'bounces' AND email_id = $1
        """
        (row,) = eventually(lambda: service.sql(query, f"mail-{number}"), ROWS_WITHIN_S, "its row")
        assert row["bounce_type"] == kind
        assert json.loads(row["details"])["smtpCode"] == status


def test_the_bounce_handler_has_the_mail_server_come_again(service: Service) -> None:
    away = run("bounce_handler.py", *nowhere(), feed=COMPLAINT)
    assert away.returncode == 75
    done = run("bounce_handler.py", "--url", service.url, feed=COMPLAINT)
    assert (done.returncode, done.stdout) == (0, "complaint bounce of eve in bounces\n")
    none_of_ours = run("bounce_handler.py", "--url", service.url, feed="Subject: hello\n\nhi\n")
    assert (none_of_ours.returncode, none_of_ours.stdout) == (0, "")


def test_the_fallback_keeps_what_it_cannot_send(service: Service, tmp_path: Path) -> None:
    kept = tmp_path / "kept.ndjson"
    lines = [
        json.dumps({"event_type": one["eventType"], "data": one["eventData"]})
        for one in (item(campaignId="kept", leadId=str(number)) for number in range(5))
    ]
    away = run("fallback.py", str(kept), *nowhere(), feed="\n".join(lines[:3]) + "\n")
    assert (away.returncode, len(kept.read_text().splitlines())) == (1, 3)
    back = run("fallback.py", str(kept), "--url", service.url, feed="\n".join(lines[3:]) + "\n")
    assert (back.returncode, kept.read_text()) == (0, ""), back.stderr
    found = rows(service, "kept", 5)
    assert [row["lead_id"] for row in found] == [str(number) for number in range(5)]
    assert len({row["client_event_id"] for row in found}) == 5


def test_the_fallback_sets_aside_what_is_no_event(service: Service, tmp_path: Path) -> None:
    kept, (event, other) = (
        tmp_path / "kept.ndjson",
        (
            {"event_type": one["eventType"], "data": one["eventData"]}
            for one in (item(campaignId="mended", leadId=name) for name in ("ada", "bob"))
        ),
    )
    kept.write_text(json.dumps(event) + '\n{"event_type": "EMAIL_OP')  # cut off by a crash
    feed = f"not JSON\n\n[1]\n{json.dumps(other)}\n"
    away = run("fallback.py", str(kept), *nowhere(), feed=feed)
    assert (away.returncode, away.stderr.count("set aside in")) == (1, 2), away.stderr
    assert (tmp_path / "kept.ndjson.unread").read_text() == "not JSON\n[1]\n"
    back = run("fallback.py", str(kept), "--url", service.url)
    assert (back.returncode, kept.read_text()) == (0, ""), back.stderr
    assert [row["lead_id"] for row in rows(service, "mended", 2)] == ["ada", "bob"]


def test_the_investigator_shows_letters_and_sends_them_again(service: Service) -> None:
    rule = "ALTER TABLE events ADD CONSTRAINT no_example CHECK (lead_id <> 'example') NOT VALID"
    service.sql(rule)
    watching = subprocess.Popen(
        [sys.executable, str(EXAMPLES / "dead_letters.py"), "--watch"],
        env={"PATH": os.environ["PATH"], "RAY_ADDRESS": service.ray_address},  # noqa: TID251
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert watching.stdout is not None
        assert watching.stdout.readline() == "watching\n"
        sent = item(campaignId="investigated", leadId="example")
        assert service.call("POST", "/events", sent).status == 202
        letter = json.loads(watching.stdout.readline())
        assert letter["eventData"]["leadId"] == "example"
        watching.send_signal(signal.SIGINT)
        assert watching.wait(30) == 0
    finally:
        watching.kill()
        watching.communicate()
        service.sql("ALTER TABLE events DROP CONSTRAINT no_example")
    shown = run("dead_letters.py", "--url", service.url)
    assert "EMAIL_OPEN: " in shown.stdout
    assert "campaigns: investigated" in shown.stdout
    redriven = run("dead_letters.py", "--url", service.url, "--redrive", "no_example")
    assert json.loads(redriven.stdout)["redriven"] == 1
    rows(service, "investigated", 1)
