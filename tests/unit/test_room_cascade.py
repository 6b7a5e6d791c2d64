"""The cascade's wiring: nobody overhears, and nothing is missing where one mix serves everybody."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from gateway.calls.audibility import Hold, Participant, audibility
from gateway.model import LegId, PartyType
from media.room_cascade import HUB, CascadePlan, Pair, link_name, plan

LEGS = [f"leg{i}" for i in range(9)]


def heard(cascade: CascadePlan, home: Mapping[str, int]) -> set[Pair]:
    """Follow the sound through the mixers as the rooms would, links included."""
    inside: dict[tuple[int, str], set[str]] = {}
    for _ in range(4):
        for room, wires in cascade.wires.items():
            for source, sink in wires:
                into = inside.setdefault((room, sink), set())
                if source.startswith("link:"):
                    far = int(source.split(":")[1]) if room == HUB else HUB
                    into |= inside.get((far, source), set())
                else:
                    into.add(source)
    return {(speaker, sink) for (_, sink), speakers in inside.items() if sink in home for speaker in speakers}


homes = st.dictionaries(st.sampled_from(LEGS), st.integers(0, 3), max_size=9)
pairs = st.tuples(st.sampled_from(LEGS), st.sampled_from(LEGS))


@given(homes, st.frozensets(pairs, max_size=40))
def test_nobody_overhears_and_what_is_missing_is_said(
    home: Mapping[str, int], speech: frozenset[Pair]
) -> None:
    cascade = plan(speech, home)
    wanted = {(a, b) for a, b in speech if a in home and b in home and a != b}
    assert heard(cascade, home) == wanted - cascade.missing
    assert cascade.missing <= wanted


@given(homes, st.frozensets(st.sampled_from(LEGS)), st.frozensets(st.sampled_from(LEGS)))
def test_mutes_and_holds_are_exact_in_any_cascade(
    home: Mapping[str, int], holding: frozenset[str], muted: frozenset[str]
) -> None:
    edges = audibility(
        [Participant(LegId(leg), PartyType.EXTERNAL) for leg in home],
        [Hold(LegId(leg)) for leg in holding],
        muted=[LegId(leg) for leg in muted],
    )
    cascade = plan(edges.speech, home)
    assert cascade.missing == frozenset()
    assert heard(cascade, home) == edges.speech


@given(homes, st.frozensets(pairs, max_size=40))
def test_no_sound_returns_to_the_room_it_came_from(home: Mapping[str, int], speech: frozenset[Pair]) -> None:
    for room, wires in plan(speech, home).wires.items():
        links = {link_name(room)} if room != HUB else {link_name(leaf) for leaf in range(1, 4)}
        assert not any(source == sink for source, sink in wires)
        assert not any(source in links and sink in links and source == sink for source, sink in wires)


def test_a_whisper_within_a_room_is_carried() -> None:
    speech = {("leg0", "leg1"), ("leg1", "leg0"), ("leg2", "leg1"), ("leg0", "leg2"), ("leg1", "leg2")}
    assert plan(speech, {"leg0": 0, "leg1": 1, "leg2": 1}).missing == frozenset()


def test_one_room_needs_no_link() -> None:
    cascade = plan({("leg0", "leg1")}, {"leg0": 0, "leg1": 0})
    assert cascade == CascadePlan({HUB: frozenset({("leg0", "leg1")})}, frozenset())
