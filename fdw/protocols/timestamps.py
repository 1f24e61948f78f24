"""google.protobuf.Timestamp and PostgreSQL's text of a timestamp with time zone."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import Any

from fdw.errors import InvalidValue, MalformedReply

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
# The years that both google.protobuf.Timestamp and datetime have: 1 to 9999.
_FIRST_S, _LAST_S = -62_135_596_800, 253_402_300_799

# ISO style, and RFC 3339; a fraction of up to 9 digits; an offset of hours, minutes and seconds.
_TEXT = re.compile(
    rb"(\d{4})-(\d\d)-(\d\d)[ T](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:Z|([+-])(\d\d)(?::?(\d\d)(?::?(\d\d))?)?)"
)


def parse(field: str, text: bytes) -> dict[str, int]:
    """Return the seconds and nanoseconds since 1970 of a timestamp's text. Raises InvalidValue (22P02)."""
    found = _TEXT.fullmatch(text)
    seconds = None if found is None else _seconds(found)
    if found is None or seconds is None or not _FIRST_S <= seconds <= _LAST_S:
        raise InvalidValue(
            f'invalid value for timestamp field "{field}"',
            "The field takes times from year 1 to 9999, with a time zone, in ISO style.",
            "Use a column of type timestamp with time zone, and set DateStyle to ISO.",
        )
    return {"seconds": seconds, "nanos": int((found[7] or b"0").ljust(9, b"0"))}


def _seconds(found: re.Match[bytes]) -> int | None:
    year, month, day, hour, minute, second = (int(part) for part in found.groups()[:6])
    offset = timedelta(hours=int(found[9] or 0), minutes=int(found[10] or 0), seconds=int(found[11] or 0))
    try:
        moment = datetime(year, month, day, hour, minute, second, tzinfo=timezone.utc)
    except ValueError:  # no such day or hour
        return None
    return (moment - _EPOCH - (-offset if found[8] == b"-" else offset)) // timedelta(seconds=1)


def show(field: str, value: Any) -> bytes:
    """Write a google.protobuf.Timestamp as text with all its digits. Raises MalformedReply (HV00M)."""
    seconds, nanos = value.seconds, value.nanos
    if not (_FIRST_S <= seconds <= _LAST_S and 0 <= nanos < 1_000_000_000):
        raise MalformedReply(f'timestamp field "{field}" holds no valid time')
    moment = _EPOCH + timedelta(seconds=seconds)
    fraction = f".{nanos:09d}".rstrip("0").rstrip(".")
    return f"{moment:%Y-%m-%d %H:%M:%S}"[-19:].rjust(19, "0").encode() + fraction.encode() + b"+00"
