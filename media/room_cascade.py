"""A conference larger than one room: which mixer connects what, as a pure function.

Rooms form a star. The hub (room 0) and each further room (leaf) share one link, a stream at both ends, which
carries one mix each way. So what a leaf's listeners hear from elsewhere is one mix for all of them, and a
hop costs one mixer's delay (12 to 16 ms at 8 kHz): two parties in different leaves are three mixers apart
(measured: 31 ms, at times 48, instead of 15).

Whatever is a matter of the speaker (mute, hold, not yet answered) or silences a listener altogether (hold,
held) is exact in any cascade, because it is applied in that party's own room. Only when listeners of one room
are to hear *different* parties of another room does one mix not serve them all (a whisper, a consultation
spread over rooms). Then the rule is: nobody overhears. The mix that serves most is sent, the others hear
nothing of it, and the speech that is missing is returned so that it can be mended: the conference seats a
supervisor who whispers with the supervised leg (`Room.set_edges`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

Port = str
Pair = tuple[Port, Port]
T = TypeVar("T")
HUB = 0


def link_name(leaf: int) -> Port:
    """Name of the link between the hub and room `leaf`, the same at both ends; never a leg's name."""
    return f"link:{leaf}"


@dataclass(frozen=True, slots=True)
class CascadePlan:
    """wires: for each room its (source, sink) pairs; missing: speech that no mix can carry."""

    wires: Mapping[int, frozenset[Pair]]
    missing: frozenset[Pair]


def plan(speech: Collection[Pair], home: Mapping[Port, int]) -> CascadePlan:
    """Wire the rooms so that `speech` comes true.

    speech: (speaker, listener) pairs; those without a home are ignored
    home:   leg -> number of its room; the hub is room 0
    """
    audible: dict[Port, frozenset[Port]] = {leg: frozenset() for leg in home}
    for speaker, listener in speech:
        if speaker in home and listener in home and speaker != listener:
            audible[listener] |= {speaker}
    rooms = {HUB, *home.values()}
    wires: dict[int, set[Pair]] = {room: set() for room in rooms}
    heard: set[Pair] = set()
    for listener, speakers in audible.items():
        for speaker in speakers:
            if home[speaker] == home[listener]:
                wires[home[listener]].add((speaker, listener))
                heard.add((speaker, listener))

    ups = {leaf: _uplink(leaf, audible, home) for leaf in sorted(rooms - {HUB})}
    for leaf, mix in ups.items():
        wires[leaf].update((speaker, link_name(leaf)) for speaker in mix)
        for listener, speakers in audible.items():
            if mix and home[listener] == HUB and mix <= speakers:
                wires[HUB].add((link_name(leaf), listener))
                heard.update((speaker, listener) for speaker in mix)
    for leaf in ups:
        sources = {frozenset({leg}): leg for leg, room in home.items() if room == HUB}
        sources |= {mix: link_name(other) for other, mix in ups.items() if other != leaf and mix}
        listeners = {leg: audible[leg] for leg, room in home.items() if room == leaf}
        parts = _downlink(sources, listeners)
        wires[HUB].update((sources[part], link_name(leaf)) for part in parts)
        content = frozenset(speaker for part in parts for speaker in part)
        for listener, speakers in listeners.items():
            if content and content <= speakers:
                wires[leaf].add((link_name(leaf), listener))
                heard.update((speaker, listener) for speaker in content)
    wanted = {(speaker, listener) for listener, speakers in audible.items() for speaker in speakers}
    return CascadePlan({room: frozenset(pairs) for room, pairs in wires.items()}, frozenset(wanted - heard))


def _uplink(leaf: int, audible: Mapping[Port, frozenset[Port]], home: Mapping[Port, int]) -> frozenset[Port]:
    """The speakers of `leaf` to put on its link."""
    wanted = [
        frozenset(speaker for speaker in speakers if home[speaker] == leaf)
        for listener, speakers in audible.items()
        if home[listener] != leaf
    ]
    return _best(_candidates(wanted), wanted)


def _downlink(
    sources: Mapping[frozenset[Port], Port], listeners: Mapping[Port, frozenset[Port]]
) -> frozenset[frozenset[Port]]:
    """The sources at the hub to mix for a leaf, each given by the speakers in it."""
    wanted = [frozenset(part for part in sources if part <= speakers) for speakers in listeners.values()]
    return _best(_candidates(wanted), wanted)


def _candidates(wanted: list[frozenset[T]]) -> set[frozenset[T]]:
    """Every set somebody wants, and what all who want anything have in common."""
    some = [mix for mix in wanted if mix]
    return {*some, frozenset.intersection(*some)} if some else set()


def _best(candidates: Iterable[frozenset[T]], wanted: list[frozenset[T]]) -> frozenset[T]:
    """The mix that brings most speech to those who may hear all of it; a tie is settled by content."""

    def gain(mix: frozenset[T]) -> tuple[int, str]:
        return len(mix) * sum(mix <= allowed for allowed in wanted), repr(sorted(map(repr, mix)))

    return max(candidates, key=gain, default=frozenset())
