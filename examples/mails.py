"""
Whose mail is this an answer to? What the reply watcher and the bounce handler share.

They expect that your mails go out with a Message-ID that says whose they are:
`<CAMPAIGN/LEAD/MAIL@your.host>`.
"""

from __future__ import annotations

import re
from email.message import EmailMessage
from typing import NamedTuple

_OURS = re.compile(r"<([^/<>\s]+)/([^/<>\s]+)/([^/@<>\s]+)@[^<>\s]+>")


class Sent(NamedTuple):
    """A mail of ours."""

    campaign_id: str
    lead_id: str
    email_id: str


def sent_before(message: EmailMessage) -> Sent | None:
    """
    The mail of ours that a message answers.

    `In-Reply-To` may hold several ids; where it names none of ours, the thread does, whose
    newest message is the last of `References`.
    """
    for names in (message["In-Reply-To"], message["References"]):
        if found := _OURS.findall(names or ""):
            return Sent(*found[-1])
    return None


def sent_as(message_id: str | None) -> Sent | None:
    """The mail of ours that has this Message-ID."""
    found = _OURS.search(message_id or "")
    return Sent(*found.groups()) if found else None


def is_automatic(message: EmailMessage) -> bool:
    """Nobody has written it: an out-of-office, say (RFC 3834, and what came before it)."""
    if (message["Auto-Submitted"] or "no").split(";")[0].strip().lower() != "no":
        return True
    if any(message[name] for name in ("X-Autoreply", "X-Autorespond")):
        return True
    return (message["Precedence"] or "").strip().lower() == "auto_reply"
