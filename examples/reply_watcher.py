#!/usr/bin/env python3
"""
Watches a Maildir for replies, and reports each.

    python examples/reply_watcher.py ~/Maildir --from-us sales@you.example

A message stays in `new/` until its event is on disk, and is moved to `cur/` then. So nothing
is missed when this is killed, and what is read twice is known by its Message-ID.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from email.utils import parseaddr, parsedate_to_datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from mails import is_automatic, sent_before

from ray_tracking import EventType, TrackingClient, Unreachable
from ray_tracking.client import RETRY_FOR_S


def reply_of(message: EmailMessage, ours: set[str]) -> dict[str, Any] | None:
    """The event that a message is; None where it is no reply to a mail of ours."""
    if message.get_content_type() in ("multipart/report", "message/disposition-notification"):
        return None  # a bounce or a receipt; see bounce_handler.py
    if parseaddr(message["From"] or "")[1].lower() in ours:
        return None  # our own next mail of the thread
    sent = sent_before(message)
    if sent is None:
        return None
    message_id = message["Message-ID"] or ""
    return {
        **sent._asdict(),
        "event_id": f"reply-{sha256(message_id.encode()).hexdigest()[:32]}",
        "timestamp": written_at(message),
        "message_id": message_id,
        "in_reply_to": message["In-Reply-To"],
        "subject": message["Subject"],
        "auto_reply": is_automatic(message),
    }


def written_at(message: EmailMessage) -> datetime:
    """When it was written, by the writer's clock, which may be wrong: never later than now."""
    now = datetime.now(UTC)
    try:
        written = parsedate_to_datetime(message["Date"])
    except (TypeError, ValueError):
        return now
    return min(written.astimezone(UTC), now) if written.tzinfo else now


def look(maildir: Path, client: TrackingClient, ours: set[str]) -> Iterator[str]:
    """Deal with everything that is new; yields a line about each reply."""
    for path in sorted((maildir / "new").iterdir()):
        message = message_from_bytes(path.read_bytes(), policy=policy.default)
        reply = reply_of(message, ours)
        if reply is not None:
            result = client.process_event(reply, EventType.EMAIL_REPLY)
            if result.retry_after is not None:
                continue  # not now; it stays where it is
            kind = "automatic" if reply["auto_reply"] else "reply"
            told = "stored" if result.success else f"refused: {result.error} {result.details}"
            yield f"{kind} of {reply['lead_id']} in {reply['campaign_id']}: {told}"
        path.rename(maildir / "cur" / f"{path.name}:2,")


def main() -> None:
    """Look again and again."""
    parser = argparse.ArgumentParser(description="Report replies in a Maildir to ray-tracking.")
    parser.add_argument("maildir", type=Path)
    parser.add_argument(
        "--from-us", action="append", default=[], help="an address that we send from"
    )
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="of ray-tracking")
    parser.add_argument("--api-key", help="with the scope ingest")
    parser.add_argument("--patience", type=float, default=RETRY_FOR_S, metavar="SECONDS")
    parser.add_argument("--once", action="store_true", help="look once, and end")
    parser.add_argument("--every", type=float, default=10.0, metavar="SECONDS")
    given = parser.parse_args()
    ours = {address.lower() for address in given.from_us}
    if not (given.maildir / "new").is_dir():
        parser.error(f"{given.maildir} is no Maildir: it has no directory new")
    (given.maildir / "cur").mkdir(exist_ok=True)
    with TrackingClient(given.url, given.api_key, retry_for_s=given.patience) as client:
        while True:
            try:
                for line in look(given.maildir, client, ours):
                    print(line, flush=True)
            except Unreachable as error:
                print(error, flush=True)
            if given.once:
                return
            time.sleep(given.every)


if __name__ == "__main__":
    main()
