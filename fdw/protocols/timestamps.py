"""google.protobuf.Timestamp and PostgreSQL's text of a timestamp with time zone."""

from __future__ import annotations

import re
from datetime import date
from typing import Any

from fdw.errors import InvalidValue, MalformedReply

_EPOCH_DAY = date(1970, 1, 1).toordinal()
# The years that both google.protobuf.Timestamp and datetime.date have: 1 to 9999.
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
    year, month, day, hour, minute, second = map(int, found.groups()[:6])
    offset_s = int(found[9] or 0) * 3600 + int(found[10] or 0) * 60 + int(found[11] or 0)
    try:
        days = date(year, month, day).toordinal() - _EPOCH_DAY
    except ValueError:  # there is no such day
        return None
    if hour > 23 or minute > 59 or second > 59:
        return None
    seconds = days * 86_400 + hour * 3600 + minute * 60 + second
    return seconds + offset_s if found[8] == b"-" else seconds - offset_s


def show(field: str, value: Any) -> bytes:
    """Write a google.protobuf.Timestamp as text with all its digits. Raises MalformedReply (HV00M)."""
    seconds, nanos = value.seconds, value.nanos
    if not (_FIRST_S <= seconds <= _LAST_S and 0 <= nanos < 1_000_000_000):
        raise MalformedReply(f'timestamp field "{field}" holds no valid time')
    days, rest = divmod(seconds, 86_400)
    minutes, second = divmod(rest, 60)
    fraction = f".{nanos:09d}".rstrip("0").rstrip(".")
    day = date.fromordinal(days + _EPOCH_DAY).isoformat()
    return f"{day} {minutes // 60:02d}:{minutes % 60:02d}:{second:02d}{fraction}+00".encode()
