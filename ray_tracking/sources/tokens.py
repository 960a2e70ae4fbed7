"""
Tokens: who opened what, and where a click leads, inside the URL itself.

A token carries everything, so that a pixel or a click needs no database. It is
encrypted and authenticated: nobody can read the ids and the destination in it,
make one up, or turn one kind into the other. Each token has exactly one spelling;
whatever else arrives is answered with None and nothing is said about why.

Why AES-SIV (RFC 5297): it needs no nonce. The same link of the same mail minted at
the same second is the same URL on every machine, there is no random number whose
repetition would break the key, and no 12 bytes of nonce in every URL. Its tag is 16
bytes and is compared in constant time.

Keys: one 512-bit key from each secret by HKDF-SHA256. The first signs, all verify,
tried in turn: a wrong one costs 1.8 us, a key id would cost a character in every
URL. Mails live for years, so a secret may leave the list only when its mails may.
Kind and format version are associated data: bound to the token, absent from it.

Inside, see :mod:`.token_packing`. Lengths measured, in characters:

=================================  ====  =====================  ====================
ids                                open  click, link of 27      click, link of 109
                                         without parameters     with four parameters
=================================  ====  =====================  ====================
campaign_123, lead_456, email_789    51                     70                    99
three numbers of seven digits        59                     79                   110
three UUIDs                          98                    116                   146
three of 21 random characters       115                    138                   167
=================================  ====  =====================  ====================

Fernet around the first line's ids as JSON takes 184. An URL of 8192 characters that
does not compress makes a token of about 11,000, more than many proxies let pass.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ray_tracking.errors import InvalidEvent, SettingsError
from ray_tracking.events import MAX_URL_CHARS
from ray_tracking.sources.destination import check_destination, location_header
from ray_tracking.sources.token_packing import HEADER_BYTES, pack, unpack

__all__ = ["ClickToken", "OpenToken", "TokenKeys", "check_destination", "location_header"]

MIN_SECRET_CHARS: Final = 32
MAX_ID_CHARS: Final = 128

# A new format gets a new number; readers then try both. Change neither for tokens
# that are out in mails.
_OPEN: Final = b"ray_tracking open 1"
_CLICK: Final = b"ray_tracking click 1"

_TAG_BYTES: Final = 16
# Three ids, a link id and a URL at four bytes a character, and the separators.
_MAX_TEXT_BYTES: Final = 4 * (4 * MAX_ID_CHARS + MAX_URL_CHARS) + 4
_MAX_TOKEN_CHARS: Final = (_TAG_BYTES + HEADER_BYTES + _MAX_TEXT_BYTES) * 4 // 3 + 1
_MAX_MINTED_AT_S: Final = 2**32 - 1

_ID = re.compile(f"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{{1,{MAX_ID_CHARS}}}")
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class OpenToken:
    """What a pixel URL says."""

    campaign_id: str
    lead_id: str
    email_id: str
    minted_at_s: int


@dataclass(frozen=True, slots=True)
class ClickToken:
    """What a click URL says. ``url`` has passed :func:`check_destination`."""

    campaign_id: str
    lead_id: str
    email_id: str
    url: str
    link_id: str | None
    minted_at_s: int


class TokenKeys:
    """
    The ring of keys: mints with the newest, reads with all.

    Args:
        secrets: At least one, newest first, each of 32 characters or more.

    Raises:
        SettingsError: One line, which never repeats a secret.
    """

    def __init__(self, secrets: Sequence[str]) -> None:
        if not secrets:
            raise SettingsError("EMAIL_ENCRYPTION_KEY: holds no key")
        for number, secret in enumerate(secrets, start=1):
            if len(secret) < MIN_SECRET_CHARS:
                raise SettingsError(
                    f"EMAIL_ENCRYPTION_KEY: key {number} of {len(secrets)} has {len(secret)} "
                    f"characters, at least {MIN_SECRET_CHARS} are needed"
                )
        self._keys = tuple(_derive(secret) for secret in secrets)

    @classmethod
    def parse(cls, text: str) -> TokenKeys:
        """The comma-separated form of ``EMAIL_ENCRYPTION_KEY``; spaces around a key are dropped."""
        return cls([secret.strip() for secret in text.split(",")] if text.strip() else [])

    def mint_open(self, campaign_id: str, lead_id: str, email_id: str, *, minted_at_s: int) -> str:
        """
        The token of a pixel URL.

        Raises:
            InvalidEvent: An id is not 1 to 128 characters without control characters.
        """
        ids = {"campaignId": campaign_id, "leadId": lead_id, "emailId": email_id}
        _refuse_if(_wrong_ids(ids))
        return self._seal(_OPEN, list(ids.values()), minted_at_s)

    def mint_click(
        self,
        campaign_id: str,
        lead_id: str,
        email_id: str,
        url: str,
        *,
        link_id: str | None = None,
        minted_at_s: int,
    ) -> str:
        """
        The token of a click URL, which leads to ``url`` and nowhere else.

        Raises:
            InvalidEvent: As for :meth:`mint_open`, or ``url`` is refused by
                :func:`check_destination`.
        """
        ids = {"campaignId": campaign_id, "leadId": lead_id, "emailId": email_id}
        optional = {} if link_id is None else {"linkId": link_id}
        wrong = _wrong_ids(ids | optional)
        if reason := check_destination(url):
            wrong.append(("linkUrl", reason))
        _refuse_if(wrong)
        return self._seal(_CLICK, [*ids.values(), url, *optional.values()], minted_at_s)

    def read_open(self, token: str) -> OpenToken | None:
        """What the token of a pixel URL says, or None if we did not mint it as one."""
        match self._unseal(_OPEN, token):
            case (minted_at_s, [campaign_id, lead_id, email_id]):
                return OpenToken(campaign_id, lead_id, email_id, minted_at_s)
        return None

    def read_click(self, token: str) -> ClickToken | None:
        """
        What the token of a click URL says, or None if we did not mint it as one.

        The destination is judged again: rules that were tightened after a mail
        went out hold for it as well.
        """
        match self._unseal(_CLICK, token):
            case (minted_at_s, [campaign_id, lead_id, email_id, url, *more]) if len(more) < 2:
                if check_destination(url) is None:
                    link_id = more[0] if more else None
                    return ClickToken(campaign_id, lead_id, email_id, url, link_id, minted_at_s)
        return None

    def _seal(self, kind: bytes, fields: list[str], minted_at_s: int) -> str:
        if not 0 <= minted_at_s <= _MAX_MINTED_AT_S:
            raise ValueError(f"minted_at_s must be seconds since 1970, not {minted_at_s}")
        sealed = self._keys[0].encrypt(pack(fields, minted_at_s), [kind])
        return urlsafe_b64encode(sealed).rstrip(b"=").decode("ascii")

    def _unseal(self, kind: bytes, token: str) -> tuple[int, list[str]] | None:
        sealed = _decode(token)
        if sealed is None:
            return None
        for key in self._keys:
            try:
                packed = key.decrypt(sealed, [kind])
            except InvalidTag:
                continue
            return unpack(packed, max_text_bytes=_MAX_TEXT_BYTES)
        return None


def _derive(secret: str) -> AESSIV:
    # What the environment holds need not be UTF-8.
    material = secret.encode("utf-8", "surrogateescape")
    derive = HKDF(algorithm=SHA256(), length=64, salt=None, info=b"ray_tracking tokens AES-SIV")
    return AESSIV(derive.derive(material))


def _decode(token: str) -> bytes | None:
    """The bytes of a token, or None unless it is exactly how those bytes are spelt."""
    # The length first, so that junk costs the same whatever its size.
    if len(token) > _MAX_TOKEN_CHARS or len(token) % 4 == 1:
        return None
    if _BASE64URL.fullmatch(token) is None:
        return None
    sealed = urlsafe_b64decode(token + "=" * (-len(token) % 4))
    # The last character has spare bits: only one setting of them is ours.
    return sealed if urlsafe_b64encode(sealed).rstrip(b"=") == token.encode("ascii") else None


def _wrong_ids(ids: dict[str, str]) -> list[tuple[str, str]]:
    message = f"must be 1 to {MAX_ID_CHARS} characters without control characters"
    return [
        (field, message)
        for field, value in ids.items()
        # A blank id would be trimmed away when the event of this token is validated.
        if _ID.fullmatch(value) is None or value.isspace()
    ]


def _refuse_if(wrong: list[tuple[str, str]]) -> None:
    if wrong:
        raise InvalidEvent(wrong)
