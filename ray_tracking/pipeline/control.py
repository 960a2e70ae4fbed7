"""
What shards, writers and the broadcaster go by while they work, as far as it may change.

It stands beside the log, so that whoever starts again finds it there, whatever else is away.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b

import msgspec

from ray_tracking.pipeline.admit import AdmissionPolicy
from ray_tracking.pipeline.write import FlushPolicy


@dataclass(frozen=True, slots=True)
class Control:
    """The rules in force, for all parts; each takes what concerns it."""

    admission: AdmissionPolicy = field(default_factory=AdmissionPolicy)
    flush: FlushPolicy = field(default_factory=FlushPolicy)
    max_log_bytes: int = 4 * 1024**3
    log_level: str = "info"

    def encode(self) -> bytes:
        """As it stands beside the log."""
        return _encode(self)

    @classmethod
    def decode(cls, raw: bytes) -> Control:
        """
        What :meth:`encode` made.

        Raises:
            ValueError: If it is none, as one of another release may be.
        """
        try:
            return _decode(raw)
        except msgspec.DecodeError as error:
            raise ValueError(f"not a control record: {error}") from None


def version_of(raw: bytes) -> bytes:
    """Names the content: the same rules, the same version."""
    return blake2b(raw, digest_size=8).hexdigest().encode()


# In a fixed order of keys: what is the same is encoded the same.
_encode = msgspec.json.Encoder(order="deterministic").encode
_decode = msgspec.json.Decoder(Control).decode
