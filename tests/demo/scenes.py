"""The calls of the demo, and what must come out of each."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.demo.failure import DemoFailed
from tests.demo.hearing import DIFFERENT, Heard, find, judge
from tests.demo.ladder import Ladder
from tests.demo.processes import Standin
from tests.demo.settings import AGENT, EXPERT
from tests.demo.speech import Conversation, Sentence
from tests.peers.tone import RATE, Pcm, loudness
from tests.peers.voice import read_audio

HOLD_SECONDS = 3.0
_MUSIC_DBFS = -45.0


@dataclass(frozen=True)
class Scene:
    """One call. hold: the Teams expert holds after the first sentence and resumes before the second."""

    name: str
    title: str
    caller: str
    lines: tuple[tuple[str, str], ...]
    hold: bool = False


CENTER, TEAMS = "contact center", "Teams"
SCENES = (
    Scene(
        "1-to-teams",
        "The contact center calls a Teams expert",
        CENTER,
        (
            (CENTER, "Hello, this is Anna. I have a customer with a billing question."),
            (TEAMS, "Hi Anna. Please tell me the invoice number."),
        ),
    ),
    Scene(
        "2-to-center",
        "A Teams expert calls the contact center",
        TEAMS,
        (
            (CENTER, "Contact center, Anna speaking."),
            (TEAMS, "Hello Anna. The customer was charged twice."),
        ),
    ),
    Scene(
        "3-hold",
        "The Teams expert holds, the contact center hears music",
        CENTER,
        (
            (TEAMS, "One moment please, I have to look that up."),
            (TEAMS, "Thank you for waiting. The refund is on its way."),
        ),
        hold=True,
    ),
)


@dataclass
class Side:
    """What one party reported at the end of a call; times are CLOCK_MONOTONIC seconds."""

    file: Path
    recording: Pcm
    began: float
    spoke: float | None


@dataclass
class Result:
    """One line per finding, and whether all of them are as they should be."""

    scene: Scene
    lines: list[str] = field(default_factory=list)
    good: bool = True

    def add(self, good: bool, *columns: str) -> None:
        self.good = self.good and good
        who, what, level, delay, verdict = columns
        self.lines.append(f"  {who:<15} {what:<38} {level:>11} {delay:>8}  {verdict}")


HEAD = f"  {'LISTENER':<15} {'HEARS':<38} {'LEVEL':>11} {'DELAY':>8}  VERDICT"


class Stage:
    """Plays scenes with both stand-ins."""

    def __init__(
        self, center: Standin, teams: Standin, ladder: Ladder, folder: Path, say: Callable[[str], None]
    ) -> None:
        self._parties = {CENTER: center, TEAMS: teams}
        self._ladder, self._folder, self._say = ladder, folder, say

    async def play(self, scene: Scene, talk: Conversation) -> Result:
        """The call from INVITE to BYE; DemoFailed when it cannot be made, wrong sound is in the result."""
        caller = self._parties[scene.caller]
        other = TEAMS if scene.caller == CENTER else CENTER
        for name, party in self._parties.items():
            party.tell(f"speak {talk.files[name]}")
        caller.tell(f"dial {EXPERT if scene.caller == CENTER else AGENT}")
        await self._parties[other].expect("RING")
        await caller.expect("ANSWERED")
        await self._parties[other].expect("ANSWERED")
        held: tuple[float, float] | None = None
        if scene.hold:
            held = await self._hold(talk)
        else:
            await self._tell(f"... {talk.seconds:.0f} s of conversation ...")
            await asyncio.sleep(talk.seconds + 0.5)
        caller.tell("bye")
        sides = dict(
            zip((CENTER, TEAMS), await asyncio.gather(*map(self._ended, (CENTER, TEAMS))), strict=True)
        )
        await self._ladder.settle()
        for name, side in sides.items():
            file = self._folder / f"{scene.name}-{name.lower().replace(' ', '-')}-hears.wav"
            side.file = side.file.rename(file)
        return examine(scene, talk, sides, held)

    async def _hold(self, talk: Conversation) -> tuple[float, float]:
        """(from, to): when both directions were certainly on hold."""
        teams, (before, after) = self._parties[TEAMS], talk.sentences
        await asyncio.sleep(before.end + 0.2)
        teams.tell("hold")
        await teams.expect("DONE")
        began = time.monotonic()
        await self._tell(f"... {HOLD_SECONDS:.0f} s on hold ...")
        await asyncio.sleep(HOLD_SECONDS)
        ended = time.monotonic()
        teams.tell("resume")
        await teams.expect("DONE")
        await asyncio.sleep(after.end - before.end + 0.5)
        return began, ended

    async def _tell(self, text: str) -> None:
        await self._ladder.settle()
        self._say(f"{'':10}{text}")

    async def _ended(self, name: str) -> Side:
        report: dict[str, Any] = json.loads(await self._parties[name].expect("HEARD"))
        if "file" not in report:
            raise DemoFailed(f"{name} heard nothing at all: not one RTP packet came")
        file = Path(report["file"])
        return Side(file, read_audio(file), report["began"], report["spoke"])


def examine(
    scene: Scene, talk: Conversation, sides: dict[str, Side], held: tuple[float, float] | None
) -> Result:
    """Each sentence at its listener, nobody's own voice at himself, the music during a hold."""
    result = Result(scene)
    for number, sentence in enumerate(talk.sentences):
        listener = TEAMS if sentence.speaker == CENTER else CENTER
        # Behind a hold the speaker's place in his recording has shifted by the hold's length.
        timed = held is None or number == 0
        heard = _sentence(sentence, sides[sentence.speaker], sides[listener], timed)
        delay = "-" if heard.delay_ms is None else f"{heard.delay_ms:.1f} ms"
        words = sentence.text if len(sentence.text) < 36 else sentence.text[:32] + " ..."
        result.add(heard.good, listener, f'"{words}"', f"{heard.level:.1f} dBFS", delay, heard.verdict)
        echo = find(sentence.pcm, sides[sentence.speaker].recording).likeness
        if echo > DIFFERENT:
            result.add(False, sentence.speaker, "his own voice", "", "", f"ECHO {echo:.2f}")
    if held is not None:
        result.add(*_music(talk, sides[CENTER], held))
    for name, side in sides.items():
        result.lines.append(f"  {name:<15} {len(side.recording) / RATE:.1f} s in {side.file.name}")
    return result


def _sentence(sentence: Sentence, speaker: Side, listener: Side, timed: bool) -> Heard:
    match = find(sentence.pcm, listener.recording)
    delay = None
    if timed and speaker.spoke is not None:
        delay = (listener.began + match.at - speaker.spoke - sentence.at) * 1000
    return judge(sentence.pcm, match, delay)


def _music(
    talk: Conversation, listener: Side, held: tuple[float, float]
) -> tuple[bool, str, str, str, str, str]:
    first, last = (max(0, int((moment - listener.began) * RATE)) for moment in held)
    sound = listener.recording[first + RATE // 2 : last]
    level = loudness(sound)
    spoken = max(find(sentence.pcm[:RATE], sound).likeness for sentence in talk.sentences)
    good = level > _MUSIC_DBFS and spoken < DIFFERENT * 2
    verdict = "music, no speech" if good else "NO MUSIC" if level <= _MUSIC_DBFS else "SPEECH ON HOLD"
    return good, CENTER, "hold music", f"{level:.1f} dBFS", "-", verdict


def wrong_with(scene: Scene, row: dict[str, Any], talk: Conversation) -> list[str]:
    """What in a call-detail row does not fit its scene; empty when all does."""
    numbers = (AGENT, EXPERT) if scene.caller == CENTER else (EXPERT, AGENT)
    trunks = ("contact-center", "teams") if scene.caller == CENTER else ("teams", "contact-center")
    kinds = ("agent", "teams_expert") if scene.caller == CENTER else ("teams_expert", "agent")
    least = int(talk.seconds + (HOLD_SECONDS if scene.hold else 0))
    wanted = {
        "from_phone": numbers[0],
        "original_destination_phone": numbers[1],
        "caller_trunk": trunks[0],
        "callee_trunk": trunks[1],
        "caller_party_type": kinds[0],
        "callee_party_type": kinds[1],
        "disposition": "caller_terminated",
        "sip_code": 200,
        "hold_time": 0,
    }
    found = [
        f"{name} is {row[name]!r}, not {value!r}" for name, value in wanted.items() if row[name] != value
    ]
    if row["talk_time"] < least:
        found.append(f"talk_time is {row['talk_time']} s, less than {least} s")
    return found
