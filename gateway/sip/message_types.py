"""The two message classes and their bytes on the wire. Import them from `gateway.sip.message`."""

from __future__ import annotations

import re

import sipmessage
from sipmessage import URI, Address, AuthChallenge, AuthCredentials, CSeq, Headers, MediaType, Via

from gateway.errors import MessageError
from gateway.sip.message_values import (
    NameAddr,
    ViaValue,
    parse_cseq,
    parse_name_addr,
    parse_uri,
    parse_via,
    split_values,
    to_parameters,
)

_NUMBER = re.compile(r"\d{1,10}")


class ParseError(MessageError):
    """A message that could not be taken; `request` is set when `code` can be answered (statelessly)."""

    def __init__(self, code: int, text: str, request: Request | None = None) -> None:
        self.request = request
        super().__init__(code, text)


class _Message(sipmessage.Message):
    """What requests and responses share. Typed accessors raise MessageError(400) and nothing else."""

    body: bytes
    headers: Headers
    charset: str = "utf-8"
    """latin-1 when the headers were not UTF-8 (old PBX display names): answers go back in the same bytes."""

    @property
    def call_id(self) -> str:
        return self._required("Call-ID")

    @call_id.setter
    def call_id(self, value: str) -> None:
        self.headers.set("Call-ID", value)

    @property
    def cseq(self) -> CSeq:
        return CSeq(*parse_cseq(self._required("CSeq")))

    @cseq.setter
    def cseq(self, value: CSeq) -> None:
        self.headers.set("CSeq", str(value))

    @property
    def from_address(self) -> Address:
        return _address(self.from_)

    @from_address.setter
    def from_address(self, value: Address) -> None:
        self.headers.set("From", str(value))

    @property
    def to_address(self) -> Address:
        return _address(self.to)

    @to_address.setter
    def to_address(self, value: Address) -> None:
        self.headers.set("To", str(value))

    @property
    def via(self) -> list[Via]:
        vias = (parse_via(text) for text in self.values("Via"))
        return [Via(via.transport, via.host, via.port, to_parameters(via.params)) for via in vias]

    @via.setter
    def via(self, value: list[Via]) -> None:
        self.headers.setlist("Via", [str(via) for via in value])

    @property
    def content_type(self) -> MediaType | None:
        text = self.headers.get("Content-Type")
        if text is None:
            return None
        try:
            return MediaType.parse(text)
        except (ValueError, TypeError):
            raise MessageError(400, "Malformed Content-Type") from None

    @content_type.setter
    def content_type(self, value: MediaType | None) -> None:
        self._set_optional_str("Content-Type", None if value is None else str(value))

    @property
    def from_(self) -> NameAddr:
        return parse_name_addr(self._required("From"))

    @property
    def to(self) -> NameAddr:
        return parse_name_addr(self._required("To"))

    @property
    def from_tag(self) -> str | None:
        return self.from_.tag

    @property
    def to_tag(self) -> str | None:
        return self.to.tag

    @property
    def top_via(self) -> ViaValue:
        values = self.values("Via")
        if not values:
            raise MessageError(400, "Missing Via")
        return parse_via(values[0])

    def values(self, name: str) -> list[str]:
        """Every value of a comma-separated header, each as received, over all its lines."""
        return [value for line in self.headers.getlist(name) for value in split_values(line)]

    def name_addrs(self, name: str) -> list[NameAddr]:
        """Contact, Route, Record-Route, P-Asserted-Identity… with the URIs byte-exact."""
        return [parse_name_addr(value) for value in self.values(name)]

    def tokens(self, name: str) -> frozenset[str]:
        """Allow, Supported, Require… as a set, in lower case except for methods (Allow)."""
        found = (token for value in self.headers.getlist(name) for token in value.split(","))
        stripped = (token.strip() for token in found)
        return frozenset(t.upper() if name.lower() == "allow" else t.lower() for t in stripped if t)

    def _required(self, name: str) -> str:
        value = self.headers.get(name)
        if value is None:
            raise MessageError(400, f"Missing {name}")
        return value

    def _get_address_list(self, key: str) -> list[Address]:
        return [_address(value) for value in self.name_addrs(key)]

    def _get_optional_int(self, key: str) -> int | None:
        value = self.headers.get(key)
        if value is None:
            return None
        if _NUMBER.fullmatch(value) is None:
            raise MessageError(400, f"Malformed {key}")
        return int(value)

    def _get_auth_challenge(self, key: str) -> AuthChallenge | None:
        try:
            return super()._get_auth_challenge(key)
        except (ValueError, TypeError):
            raise MessageError(400, f"Malformed {key}") from None

    def _get_auth_credentials(self, key: str) -> AuthCredentials | None:
        try:
            return super()._get_auth_credentials(key)
        except (ValueError, TypeError):
            raise MessageError(400, f"Malformed {key}") from None

    def __bytes__(self) -> bytes:
        return to_bytes(self)  # type: ignore[arg-type]  # only the two subclasses exist


class Request(_Message):
    """A request; `uri_text` is the Request-URI as received or as it will be sent."""

    def __init__(self, method: str, uri_text: str, body: bytes = b"") -> None:
        self.method = method
        self.uri_text = uri_text
        self.body = body
        self.headers = Headers()

    @property
    def uri(self) -> URI:
        """MessageError(416 | 400) when it is not a usable sip, sips or tel URI."""
        return parse_uri(self.uri_text)

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.uri_text}>"


class Response(_Message):
    """A response; `code` is 100..699."""

    def __init__(self, code: int, phrase: str, body: bytes = b"") -> None:
        self.code = code
        self.phrase = phrase
        self.body = body
        self.headers = Headers()

    def __repr__(self) -> str:
        return f"<Response {self.code} {self.phrase}>"


Message = Request | Response


def _address(value: NameAddr) -> Address:
    return Address(uri=value.uri, name=value.display, parameters=to_parameters(value.params))


def to_bytes(message: Message) -> bytes:
    """The message on the wire: Via first, Content-Length last and right.

    MessageError(500) if a value holds a line break: it would start a header of its own.
    """
    if isinstance(message, Request):
        start = f"{message.method} {message.uri_text} SIP/2.0"
    else:
        start = f"SIP/2.0 {message.code} {message.phrase}"
    lines = [start]
    lines += [f"Via: {value}" for value in message.headers.getlist("Via")]
    for name in message.headers.keys():  # noqa: SIM118  not a dict
        if name.lower() not in ("via", "content-length"):
            lines += [f"{name}: {value}" for value in message.headers.getlist(name)]
    lines.append(f"Content-Length: {len(message.body)}")
    text = "\r\n".join(lines)
    if text.count("\n") != len(lines) - 1 or text.count("\r") != len(lines) - 1:
        raise MessageError(500, "A header value holds a line break")
    try:
        head = text.encode(message.charset)
    except UnicodeEncodeError:
        head = text.encode("utf-8", "replace")
    return head + b"\r\n\r\n" + message.body
