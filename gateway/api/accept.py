"""Which of our media types an Accept header asks for (RFC 9110 12.5.1)."""

from __future__ import annotations

from collections.abc import Sequence


def preferred(accept: str, offered: Sequence[str]) -> str | None:
    """The best of `offered`, which stand in our order of preference; None when none will do.

    An empty header takes the first. A range that cannot be read is passed over.
    """
    if not accept.strip():
        return offered[0]
    ranges = [found for part in accept.split(",") if (found := _range(part)) is not None]
    best: tuple[float, int] | None = None
    for place, kind in enumerate(offered):
        quality = _quality(kind, ranges)
        if quality > 0 and (best is None or quality > best[0]):
            best = (quality, place)
    return offered[best[1]] if best is not None else None


def _range(text: str) -> tuple[str, float] | None:
    name, *parameters = (part.strip().lower() for part in text.split(";"))
    quality = 1.0
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip() == "q":
            try:
                quality = float(value)
            except ValueError:
                return None
    if not 0 <= quality <= 1:
        return None
    return (name, quality) if name.count("/") == 1 else None


def _quality(kind: str, ranges: Sequence[tuple[str, float]]) -> float:
    """The quality of the most specific range that fits."""
    for pattern in (kind, kind.partition("/")[0] + "/*", "*/*"):
        for name, quality in ranges:
            if name == pattern:
                return quality
    return 0.0
