#!/usr/bin/env python3
"""
Takes one bounce or complaint on standard input, as a mail server pipes it, and reports it.

    bounces unix - n n - - pipe  user=tracking argv=/usr/bin/python3 examples/bounce_handler.py

(`master.cf` of Postfix.) Exit code 0: dealt with, or nothing of ours. 75 (EX_TEMPFAIL): not now;
the mail server keeps the message and comes again, so nothing is lost while the service is away.
65 (EX_DATAERR): the service refuses it for what it is.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from hashlib import sha256
from typing import Any, cast

from mails import Sent, sent_as

from ray_tracking import EventType, TrackingClient, Unreachable
from ray_tracking.client import RETRY_FOR_S

EX_DATAERR, EX_TEMPFAIL = 65, 75
#: There is no such mailbox or host, and will not be: RFC 3463. Whatever else begins with a 5
#: (full, blocked, too large, policy) may pass, and taking it for hard loses good addresses.
HARD = re.compile(r"5\.(1\.(1|2|3|6|10)|2\.1|4\.4)$")
#: RFC 5965, and what each is to us; "not-spam" is no complaint.
FEEDBACK = {"abuse": "complaint", "fraud": "complaint", "virus": "complaint",
            "opt-out": "suppression", "unsubscribe": "suppression"}  # fmt: skip


def bounces_of(message: EmailMessage) -> Iterator[dict[str, Any]]:
    """The events that a report is: one for each recipient that failed."""
    parts = list(message.walk())
    sent = next(filter(None, map(original_of, parts)), None)
    if sent is None:
        return
    for part in parts:
        if part.get_content_type() == "message/feedback-report":
            report = fields_of(part)[0]
            kind = FEEDBACK.get((report["Feedback-Type"] or "").strip().lower())
            if kind is not None:
                yield bounce(message, sent, kind, f"feedback: {report['Feedback-Type']}", None)
        elif part.get_content_type() == "message/delivery-status":
            # The first block is about the message, each other about a recipient.
            for recipient in fields_of(part)[1:]:
                if (recipient["Action"] or "").strip().lower() == "failed":
                    status = (recipient["Status"] or "").split("(")[0].strip()
                    kind = "hard" if HARD.match(status) else "soft"
                    yield bounce(message, sent, kind, recipient["Diagnostic-Code"], status)


def fields_of(part: EmailMessage) -> list[EmailMessage]:
    """The blocks of fields of a report."""
    payload = part.get_payload()
    if isinstance(payload, list):
        return cast("list[EmailMessage]", payload)
    text = part.get_content()
    raw = text if isinstance(text, bytes) else str(text).encode()
    return [message_from_bytes(raw, policy=policy.default)]


def original_of(part: EmailMessage) -> Sent | None:
    """The mail that a report encloses, whole or its header alone."""
    kind = part.get_content_type()
    if kind == "message/rfc822":
        (inner,) = cast("list[EmailMessage]", part.get_payload())
        return sent_as(inner["Message-ID"])
    if kind == "text/rfc822-headers":
        found = re.search(r"^Message-ID:\s*(\S+)", str(part.get_content()), re.I | re.M)
        return sent_as(found[1]) if found else None
    return None


def bounce(
    message: EmailMessage, sent: Sent, kind: str, reason: str | None, status: str | None
) -> dict[str, Any]:
    """One event; the same report gives the same id, however often it is piped in."""
    report = f"{message['Message-ID']} {kind} {status}"
    event = {
        **sent._asdict(),
        "event_id": f"bounce-{sha256(report.encode()).hexdigest()[:32]}",
        "timestamp": datetime.now(UTC),
        "bounce_type": kind,
        "bounce_reason": " ".join((reason or "").split())[:500] or None,
        "smtp_code": status or None,
    }
    return {name: value for name, value in event.items() if value is not None}


def main() -> int:
    """Deal with the message on standard input."""
    parser = argparse.ArgumentParser(description="Report a bounce on standard input.")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="of ray-tracking")
    parser.add_argument("--api-key", help="with the scope ingest")
    parser.add_argument("--patience", type=float, default=RETRY_FOR_S, metavar="SECONDS")
    given = parser.parse_args()
    message = message_from_bytes(sys.stdin.buffer.read(), policy=policy.default)
    with TrackingClient(given.url, given.api_key, retry_for_s=given.patience) as client:
        for event in bounces_of(message):
            try:
                result = client.process_event(event, EventType.EMAIL_BOUNCE)
            except Unreachable as error:
                print(error, file=sys.stderr)
                return EX_TEMPFAIL
            if not result.success:
                print(result.error, result.details, file=sys.stderr)
                return EX_DATAERR if result.retry_after is None else EX_TEMPFAIL
            print(f"{event['bounce_type']} bounce of {event['lead_id']} in {event['campaign_id']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
