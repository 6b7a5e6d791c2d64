"""Two voices that talk with each other: sentences, who says which when, and their recordings."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.demo.failure import DemoFailed
from tests.peers.tone import RATE, Pcm
from tests.peers.voice import read_audio, write_wav

VOICES = {
    "contact center": ("-v", "en-us+f3", "-s", "185", "-p", "60"),
    "Teams": ("-v", "en-gb", "-s", "180", "-p", "35"),
}
"""Who talks in a `converse`."""
_OTHERS = {"customer": ("-v", "en-us+m3", "-s", "170", "-p", "45")}
_PAUSE = 0.35
"""Seconds between two sentences of a conversation."""
_TAIL = 30
"""Seconds of silence after the last sentence, so that nobody begins anew during a call."""


@dataclass(frozen=True)
class Sentence:
    """`at`: seconds after the speaker began to speak at which he says it; `pcm` as it is sent."""

    speaker: str
    text: str
    at: float
    pcm: Pcm

    @property
    def end(self) -> float:
        return self.at + len(self.pcm) / RATE


@dataclass(frozen=True)
class Conversation:
    """`files`: what each party plays from its answer on; silent while the other one speaks."""

    sentences: tuple[Sentence, ...]
    files: dict[str, Path]

    @property
    def seconds(self) -> float:
        return max(sentence.end for sentence in self.sentences)


async def converse(folder: Path, name: str, lines: Sequence[tuple[str, str]]) -> Conversation:
    """Have (speaker, text) lines spoken one after the other; writes `NAME-SPEAKER.wav` per speaker."""
    spoken = await asyncio.gather(
        *(_speak(folder / f"{name}-{index}.wav", *line) for index, line in enumerate(lines))
    )
    at, sentences = _PAUSE, []
    for (speaker, text), pcm in zip(lines, spoken, strict=True):
        sentences.append(Sentence(speaker, text, at, pcm))
        at = sentences[-1].end + _PAUSE
    files = {}
    for speaker in VOICES:
        track = np.zeros(int((at + _TAIL) * RATE), dtype=np.int16)
        for sentence in sentences:
            if sentence.speaker == speaker:
                begin = int(sentence.at * RATE)
                track[begin : begin + len(sentence.pcm)] = sentence.pcm
        files[speaker] = folder / f"{name}-{speaker.replace(' ', '-')}.wav"
        write_wav(files[speaker], track)
    return Conversation(tuple(sentences), files)


async def monologue(file: Path, speaker: str, lines: Sequence[str], *, pause: float = 3.0) -> Path:
    """Write sentences of one speaker, `pause` seconds of silence behind each; to be said again and again."""
    spoken = [
        await _speak(file.with_name(f"{file.stem}-{n}.wav"), speaker, text) for n, text in enumerate(lines)
    ]
    silence = np.zeros(int(pause * RATE), dtype=np.int16)
    write_wav(file, np.concatenate([piece for pcm in spoken for piece in (pcm, silence)]))
    return file


async def _speak(file: Path, speaker: str, text: str) -> Pcm:
    try:
        process = await asyncio.create_subprocess_exec(
            "espeak-ng",
            *(VOICES | _OTHERS)[speaker],
            "-w",
            str(file),
            "--",
            text,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise DemoFailed(f"espeak-ng cannot be started: {error.strerror}") from error
    try:
        _, complaint = await asyncio.wait_for(process.communicate(), 20)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise DemoFailed(f"espeak-ng: {complaint.decode(errors='replace').strip()}")
    pcm = await asyncio.to_thread(_take, file)
    loud = np.flatnonzero(np.abs(pcm) > 300)
    return pcm[loud[0] : loud[-1] + 1] if len(loud) else pcm


def _take(file: Path) -> Pcm:
    pcm = read_audio(file)
    file.unlink()
    return pcm
