"""Which headers of one side's INVITE the other side gets, and in which form.

| header | toward Teams | toward a plain trunk |
|---|---|---|
| History-Info (RFC 7044) | kept; foreign hosts become our FQDN, Microsoft's entries stay byte-exact | kept |
| User-to-User (RFC 7433) | no: Microsoft documents no relaying (facts 3.3) | kept |
| Diversion (RFC 5806) | no: historic, and History-Info says it | no |
| P-Asserted-Identity, Privacy | made anew by `identity` | made anew by `identity` |
| Referred-By | no: only in the INVITE after a REFER, byte-exact (facts 6.3) | no: holds tenant tokens |
| Reason | of BYE, CANCEL and final answers by `reasons`; never in an INVITE | the same |
| X-MS-*, Via, Record-Route, everything else | no | no |
"""

from __future__ import annotations

import re

from gateway.model import TrunkKind
from gateway.sip.message_values import uri_headers
from gateway.trunks.numbers import NumberPlan, to_e164
from gateway.trunks.uris import HeaderSource, addresses, host_of, sip_uri, user_of

ADDRESS = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}")
"""An address of the inner network in free text: an escaped Reason, a display name. Teams is not told it."""
_MICROSOFT = re.compile(
    r"(?:^|\.)pstnhub\.(?:microsoft\.com|gov\.teams\.microsoft\.us|dod\.teams\.microsoft\.us)$"
)


def relayed_headers(
    headers: HeaderSource, toward: TrunkKind, *, host: str, plan: NumberPlan
) -> tuple[tuple[str, str], ...]:
    """The headers of an INVITE to send on.

    host: our FQDN on the outgoing trunk; plan: of the trunk the INVITE came from
    """
    found = [("History-Info", value) for value in _history(headers, toward, host, plan)]
    if toward is TrunkKind.SIP:
        found.extend(("User-to-User", value) for value in headers.getlist("User-to-User"))
    return tuple(found)


def _history(headers: HeaderSource, toward: TrunkKind, host: str, plan: NumberPlan) -> list[str]:
    entries = addresses(headers, "History-Info")
    values: list[str] = []
    for entry in entries:
        uri_text = entry.uri_text
        if toward is TrunkKind.DIRECT_ROUTING and _MICROSOFT.search(host_of(entry.uri)) is None:
            user = to_e164(user_of(entry.uri), plan)
            escaped = uri_headers(uri_text)
            params = ("user=phone",) if user.startswith("+") else ()
            uri_text = sip_uri(user, host, params=params)
            if escaped and ADDRESS.search(escaped) is None:
                uri_text += f"?{escaped}"
        params_text = "".join(
            f";{name}" if value is None else f";{name}={_quoted(value)}"
            for name, value in entry.params.items()
        )
        values.append(f"<{uri_text}>{params_text}")
    return values


def _quoted(value: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9\-.!%*_+`'~:\[\]]+", value):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
