"""Which tests stand for which trap of Direct Routing (facts/direct-routing.md 9), one or more for each.

| trap | what it is about | where |
|---|---|---|
| T1 | no address in Contact, From, Via | test_trap_rules, test_trap_addresses, test_trunk_direct_routing |
| T2 | Asterisk's own | nothing to prove here; its multi-tenant half is T26 |
| T3 | Contact in OPTIONS, 18x, 200 | test_trunk_options, test_trap_rules |
| T4 | a proxy cannot do it | test_trap_rules |
| T5 | no Record-Route | test_trap_rules |
| T6 | our own Allow everywhere | test_trap_rules, test_trunk_options, test_session_changes |
| T7 | certificate, chain, names when we dial | test_trap_tls, test_tls, test_trunk_direct_routing |
| T8 | seven roots, serverAuth only | test_trap_tls, test_tls, test_trunk_roots |
| T9 | renewal recycles connections | test_trap_tls, test_tls, test_trunk_options |
| T10 | three names, live DNS | test_trunk_options, test_transport_dns |
| T11 | requests from anywhere, Contact on port 443 | test_teams_dialog, test_session_link |
| T12 | silent 183, forks | test_setup, test_teams_dialog |
| T13 | SDES forms | test_teams_shapes, test_srtp |
| T14 | large offers toward UDP | test_teams_shapes |
| T15 | new key, counter at 0; ours stays | test_teams_dialog, test_srtp, test_session_changes |
| T16 | refreshes end at us | test_trap_rules, test_teams_dialog, test_session_timer |
| T17 | sendrecv after a hold | test_trap_rules |
| T18 | the transfer's order of events | test_teams_transfer, test_trap_rules, test_session_refer |
| T19 | held calls are silent by right | test_trap_rules |
| T20 | only inactive, and never from the other side | test_trap_rules |
| T21 | one media address for life | test_trap_rules |
| T22 | toll fraud | test_trap_tls, test_trap_rules, test_tls, test_trunk_direct_routing |
| T23 | definite answers end the hunt | test_trunk_hunting (calls) |
| T24 | 180 in time, 503 when it cannot | test_trap_rules, test_trunk_hunting (calls), test_progress_after |
| T25 | 422 | test_trap_rules, test_session_uac |
| T26 | tenants | test_trap_rules, test_trunk_direct_routing |
| T27 | DNS without an address | test_transport_dns |
| T28 | replaces offered, never sent | test_trap_rules, test_trunk_direct_routing, test_session_refer |
| T29 | DNS never blocks the loop | test_transport_dns |
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

TESTS = Path(__file__).parents[1]
NOT_OURS = {2}


def test_every_trap_has_tests_named_after_it_in_every_file_of_the_table() -> None:
    """A test that is renamed or lost leaves its trap uncovered, and the table above wrong."""
    named: dict[int, set[str]] = defaultdict(set)
    for file in TESTS.rglob("test_*.py"):
        for name in re.findall(r"^(?:async )?def (test_\w+)", file.read_text(), re.M):
            for trap in re.findall(r"(?<=_)t(\d{1,2})(?=_)", name):
                named[int(trap)].add(file.stem)
    rows = re.findall(r"^\| T(\d+) \|[^|]*\| ([^|]*) \|$", __doc__ or "", re.M)
    assert [int(trap) for trap, _ in rows] == list(range(1, 30))
    missing = {
        f"T{trap}": lost
        for trap, where in rows
        if int(trap) not in NOT_OURS and (lost := set(re.findall(r"test_\w+", where)) - named[int(trap)])
    }
    assert missing == {}
