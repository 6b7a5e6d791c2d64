"""The rules of `audibility`, by example and over random calls."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.calls.audibility import (
    Consultation,
    Edges,
    Hold,
    MusicPolicy,
    Participant,
    Supervision,
    SupervisorMode,
    audibility,
)
from gateway.model import LegId, PartyType

A, C, E, F, S = (LegId(name) for name in ("agent", "customer", "expert", "fourth", "supervisor"))
AGENT = Participant(A, PartyType.AGENT, host=True)
CUSTOMER = Participant(C, PartyType.EXTERNAL)
EXPERT = Participant(E, PartyType.TEAMS_EXPERT)
FOURTH = Participant(F, PartyType.EXTERNAL)
TWO = (AGENT, CUSTOMER)
THREE = (AGENT, CUSTOMER, EXPERT)


def mesh(*legs: LegId) -> frozenset[tuple[LegId, LegId]]:
    return frozenset((a, b) for a in legs for b in legs if a != b)


def supervisor(mode: SupervisorMode, of: LegId = A) -> Participant:
    return Participant(S, PartyType.AGENT, supervision=Supervision(mode, of))


def test_three_parties_hear_exactly_each_other() -> None:
    assert audibility(THREE) == Edges(mesh(A, C, E), frozenset())


def test_nobody_and_one_alone() -> None:
    assert audibility(()) == Edges()
    assert audibility((AGENT,)) == Edges()


@pytest.mark.parametrize(("holder", "other"), [(A, C), (C, A)])
@pytest.mark.parametrize("policy", [MusicPolicy.REMAINING, MusicPolicy.ALONE])
def test_in_a_call_of_two_the_other_hears_music(holder: LegId, other: LegId, policy: MusicPolicy) -> None:
    assert audibility(TWO, [Hold(holder)], music=policy) == Edges(frozenset(), frozenset({other}))


@pytest.mark.parametrize("holder", [A, E, C])
def test_the_remaining_hear_music_and_each_other_whoever_holds(holder: LegId) -> None:
    rest = {A, C, E} - {holder}
    assert audibility(THREE, [Hold(holder)]) == Edges(mesh(*rest), frozenset(rest))


def test_policy_alone_waits_until_one_is_left() -> None:
    assert audibility(THREE, [Hold(E)], music=MusicPolicy.ALONE).music == frozenset()
    assert audibility(THREE, [Hold(E), Hold(A)], music=MusicPolicy.ALONE).music == {C}


def test_policy_never_is_silence_for_everybody() -> None:
    edges = audibility(THREE, [Hold(E), Hold(A, of=C)], music=MusicPolicy.NEVER)
    assert edges == Edges()


def test_when_all_hold_nobody_hears_anything() -> None:
    assert audibility(THREE, [Hold(A), Hold(C), Hold(E)]) == Edges()


def test_a_holder_who_left_leaves_no_music_behind() -> None:
    assert audibility((CUSTOMER, EXPERT), [Hold(A), Hold(A, of=C)]) == Edges(mesh(C, E), frozenset())


def test_a_party_held_alone_hears_music_while_the_others_talk() -> None:
    assert audibility(THREE, [Hold(A, of=C)]) == Edges(mesh(A, E), frozenset({C}))
    assert audibility(THREE, [Hold(None, of=C)]) == Edges(mesh(A, E), frozenset({C}))


def test_a_held_party_who_also_holds_hears_nothing() -> None:
    assert audibility(THREE, [Hold(A, of=C), Hold(C)]).music == {A, E}


def test_a_hold_of_everybody_without_a_holder_is_refused() -> None:
    with pytest.raises(ValueError, match="holder"):
        Hold(None)


def test_muted_is_not_heard_and_hears() -> None:
    assert audibility(THREE, muted=[C]).speech == mesh(A, C, E) - {(C, A), (C, E)}


def test_a_dialled_leg_is_heard_and_hears_nothing() -> None:
    edges = audibility((AGENT, CUSTOMER, replace(EXPERT, ringing=True)))
    assert edges == Edges(mesh(A, C) | {(E, A), (E, C)}, frozenset())


def test_hold_while_a_third_is_ringing() -> None:
    edges = audibility((AGENT, CUSTOMER, replace(EXPERT, ringing=True)), [Hold(A)], music=MusicPolicy.ALONE)
    assert edges == Edges(frozenset({(E, C)}), frozenset({C}))


def test_inactive_early_media_of_the_third_is_no_hold_of_the_call() -> None:
    edges = audibility((AGENT, CUSTOMER, replace(EXPERT, ringing=True)), [Hold(E)])
    assert edges == Edges(mesh(A, C), frozenset())


def test_consultation_then_merge_then_leave() -> None:
    consulting = [Consultation(A, frozenset({E}))]
    assert audibility(THREE, consultations=consulting) == Edges(mesh(A, E), frozenset({C}))
    assert audibility(THREE) == Edges(mesh(A, C, E), frozenset())
    assert audibility((CUSTOMER, EXPERT)) == Edges(mesh(C, E), frozenset())


def test_consultation_target_rings_to_the_agent_only() -> None:
    parties = (AGENT, CUSTOMER, replace(EXPERT, ringing=True))
    edges = audibility(parties, consultations=[Consultation(A, frozenset({E}))])
    assert edges == Edges(frozenset({(E, A)}), frozenset({C}))


def test_the_expert_holds_the_consultation() -> None:
    edges = audibility(THREE, [Hold(E)], consultations=[Consultation(A, frozenset({E}))])
    assert edges == Edges(frozenset(), frozenset({A, C}))


def test_the_supervisor_who_listens_is_heard_by_nobody() -> None:
    edges = audibility((*TWO, supervisor(SupervisorMode.LISTEN)))
    assert edges.speech == mesh(A, C) | {(A, S), (C, S)}


def test_a_whisper_reaches_the_agent_alone() -> None:
    edges = audibility((*TWO, supervisor(SupervisorMode.WHISPER)))
    assert edges.speech == mesh(A, C) | {(A, S), (C, S), (S, A)}
    assert edges.heard_by(C) == {A}


def test_barge_is_a_party_like_any_other() -> None:
    assert audibility((*TWO, supervisor(SupervisorMode.BARGE))).speech == mesh(A, C, S)


def test_a_muted_whisper_is_silent() -> None:
    assert (S, A) not in audibility((*TWO, supervisor(SupervisorMode.WHISPER)), muted=[S]).speech


def test_the_supervisor_follows_the_agent_into_the_consultation() -> None:
    parties = (*THREE, supervisor(SupervisorMode.WHISPER))
    edges = audibility(parties, consultations=[Consultation(A, frozenset({E}))])
    assert edges == Edges(mesh(A, E) | {(A, S), (E, S), (S, A)}, frozenset({C}))


def test_a_silent_supervisor_holding_gives_no_music_and_gets_none() -> None:
    parties = (*TWO, supervisor(SupervisorMode.LISTEN))
    assert audibility(parties, [Hold(S)]) == Edges(mesh(A, C), frozenset())
    assert audibility(parties, [Hold(A)]) == Edges(frozenset({(C, S)}), frozenset({C}))


def test_no_whisper_reaches_an_agent_who_holds_or_is_held() -> None:
    parties = (*THREE, supervisor(SupervisorMode.WHISPER))
    assert audibility(parties, [Hold(A)]).heard_by(A) == frozenset()
    assert audibility(parties, [Hold(E, of=A)]).heard_by(A) == frozenset()


def test_a_leg_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        audibility((AGENT, AGENT))


@dataclass(frozen=True)
class Scene:
    participants: tuple[Participant, ...]
    holds: tuple[Hold, ...]
    muted: tuple[LegId, ...]
    consultations: tuple[Consultation, ...]
    music: MusicPolicy

    def edges(self) -> Edges:
        return audibility(
            self.participants,
            self.holds,
            muted=self.muted,
            consultations=self.consultations,
            music=self.music,
        )


T = TypeVar("T")
LEGS = [LegId(f"l{i}") for i in range(7)]


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    legs = st.sampled_from(LEGS)
    supervision = st.none() | st.builds(Supervision, st.sampled_from(SupervisorMode), legs)
    participants = draw(
        st.lists(
            st.builds(
                Participant, legs, st.sampled_from(PartyType), st.booleans(), st.booleans(), supervision
            ),
            unique_by=lambda p: p.leg,
            max_size=7,
        )
    )
    holds = draw(st.lists(st.builds(Hold, legs, st.none()) | st.builds(Hold, st.none() | legs, legs)))
    consultations = draw(
        st.lists(st.builds(Consultation, legs, st.frozensets(legs, min_size=1, max_size=3)), max_size=2)
    )
    muted = draw(st.lists(legs, max_size=3))
    return Scene(
        tuple(participants),
        tuple(holds),
        tuple(muted),
        tuple(consultations),
        draw(st.sampled_from(MusicPolicy)),
    )


def _is_held(scene: Scene, leg: LegId) -> bool:
    present = {p.leg for p in scene.participants}
    return any(h.of == leg and (h.by is None or h.by in present) for h in scene.holds)


@given(scenes())
def test_nobody_hears_himself_and_no_stranger_appears(scene: Scene) -> None:
    edges = scene.edges()
    present = {p.leg for p in scene.participants}
    assert all(a != b for a, b in edges.speech)
    assert {leg for pair in edges.speech for leg in pair} | edges.music <= present


@given(scenes())
def test_holder_and_held_take_no_part_in_speech(scene: Scene) -> None:
    edges = scene.edges()
    out = {h.by for h in scene.holds if h.of is None} | {leg for leg in LEGS if _is_held(scene, leg)}
    assert not any(a in out or b in out for a, b in edges.speech)


@given(scenes())
def test_music_goes_exactly_to_those_the_policy_names(scene: Scene) -> None:
    """Restated without the consultations, from the sentence of the issue instead of from the code."""
    scene = replace(scene, consultations=())
    parties = [
        p
        for p in scene.participants
        if not p.ringing and (p.supervision is None or p.supervision.mode is SupervisorMode.BARGE)
    ]
    holders = {h.by for h in scene.holds if h.of is None} & {p.leg for p in parties}
    held = {p.leg for p in parties if _is_held(scene, p.leg)} - holders
    remaining = {p.leg for p in parties} - holders - held
    expected = set(held)
    if holders and (scene.music is MusicPolicy.REMAINING or len(remaining) == 1):
        expected |= remaining
    if scene.music is MusicPolicy.NEVER:
        expected = set()
    assert scene.edges().music == expected


@given(scenes(), st.randoms(use_true_random=False))
def test_the_order_of_events_does_not_matter(scene: Scene, dice: random.Random) -> None:
    def shuffled(items: tuple[T, ...]) -> tuple[T, ...]:
        return tuple(dice.sample(items, len(items)))

    other = Scene(
        shuffled(scene.participants),
        shuffled(scene.holds),
        shuffled(scene.muted),
        shuffled(scene.consultations),
        scene.music,
    )
    assert other.edges() == scene.edges()


@given(scenes())
def test_saying_it_twice_changes_nothing(scene: Scene) -> None:
    twice = replace(
        scene,
        holds=scene.holds * 2,
        muted=scene.muted * 2,
        consultations=scene.consultations * 2,
    )
    assert twice.edges() == scene.edges()


@given(scenes())
def test_party_type_and_host_do_not_matter(scene: Scene) -> None:
    plain = tuple(replace(p, party=PartyType.EXTERNAL, host=False) for p in scene.participants)
    assert replace(scene, participants=plain).edges() == scene.edges()


@given(scenes())
def test_the_muted_are_not_heard_and_hear_as_before(scene: Scene) -> None:
    edges, loud = scene.edges(), replace(scene, muted=()).edges()
    assert edges.speech == {(a, b) for a, b in loud.speech if a not in scene.muted}
    assert edges.music == loud.music


@given(scenes())
def test_nobody_outside_a_consultation_hears_it(scene: Scene) -> None:
    scene = replace(scene, consultations=scene.consultations[:1])
    if not scene.consultations:
        return
    (consultation,) = scene.consultations
    present = {p.leg for p in scene.participants}
    inside = {consultation.by, *consultation.targets}
    if consultation.by not in present:
        return
    outsiders = {p.leg for p in scene.participants if p.leg not in inside and p.supervision is None}
    assert not any((a in inside) != (b in inside) for a, b in scene.edges().speech if {a, b} & outsiders)
