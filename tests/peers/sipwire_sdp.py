"""Session descriptions as the test peers see them: a plain look at one audio line, no opinion."""

from __future__ import annotations

from dataclasses import dataclass, field

NAMES = {0: "PCMU", 8: "PCMA", 9: "G722", 13: "CN", 18: "G729"}


@dataclass(frozen=True)
class Crypto:
    """One a=crypto line: `key` is the base64 text, `rest` what follows it ('|2^31', '|2^31|1:1', '')."""

    tag: int
    suite: str
    key: str
    rest: str


@dataclass
class Audio:
    """The first audio line with what applies to it from the session level."""

    address: str
    port: int
    profile: str
    formats: list[int]
    rtpmap: dict[int, str]
    direction: str
    crypto: list[Crypto]
    origin: list[str]
    attributes: list[str]
    media_lines: int
    text: str = field(repr=False, default="")

    @property
    def session_id(self) -> str:
        return self.origin[1]

    @property
    def version(self) -> int:
        return int(self.origin[2])

    def names(self) -> list[str]:
        """Encoding names in the order offered."""
        return [
            self.rtpmap.get(number, NAMES.get(number, str(number))).split("/")[0] for number in self.formats
        ]

    def number(self, name: str) -> int | None:
        """Payload type of an encoding name (for telephone-event the 8000 Hz one)."""
        found = [
            n
            for n, encoding in zip(self.formats, self.names(), strict=True)
            if encoding.upper() == name.upper()
        ]
        narrow = [n for n in found if self.rtpmap.get(n, "/8000").split("/")[1] == "8000"]
        candidates = narrow or found
        return candidates[0] if candidates else None


def audio(body: bytes) -> Audio:
    """ValueError when there is no audio line or the description is broken."""
    text = body.decode()
    session, media = [], list[list[str]]()
    for line in text.splitlines():
        if line.startswith("m="):
            media.append([line])
        elif media:
            media[-1].append(line)
        else:
            session.append(line)
    chosen = next((lines for lines in media if lines[0].startswith("m=audio")), None)
    if chosen is None:
        raise ValueError(f"no audio line in {text!r}")
    _, port, profile, *formats = chosen[0].split()
    connection = [line for line in (*session, *chosen) if line.startswith("c=")]
    attributes = [line[2:] for line in chosen if line.startswith("a=")]
    ways = [line[2:] for line in (*session, *chosen) if line in _WAYS]
    rtpmap = {}
    crypto = []
    for attribute in attributes:
        if attribute.startswith("rtpmap:"):
            number, encoding = attribute[7:].split(" ", 1)
            rtpmap[int(number)] = encoding
        elif attribute.startswith("crypto:"):
            tag, suite, inline = attribute[7:].split(" ")[:3]
            key, bar, rest = inline.removeprefix("inline:").partition("|")
            crypto.append(Crypto(int(tag), suite, key, bar + rest))
    origin = next(line for line in session if line.startswith("o="))[2:].split()
    return Audio(
        connection[-1].split()[-1] if connection else "",
        int(port.split("/")[0]),
        profile,
        [int(number) for number in formats],
        rtpmap,
        ways[-1] if ways else "sendrecv",
        crypto,
        origin,
        attributes,
        len(media),
        text,
    )


_WAYS = {"a=sendrecv", "a=sendonly", "a=recvonly", "a=inactive"}
MIRROR = {"sendrecv": "sendrecv", "sendonly": "recvonly", "recvonly": "sendonly", "inactive": "inactive"}
