"""What the probe found, whether that is good enough, and how it is said."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Final

LEAST_HEARD: Final = 0.5
"""Share of the reference signals that has to come back."""


class Cause(StrEnum):
    """Why there are no figures.

    UNREACHABLE: no gateway answers; DENIED: it does not take the token or password; REFUSED: it knows no such
    agent, number or trunk, or takes no calls now; CALL: the call ended, or nobody answered; MEDIA: no sound
    came to be between the gateway and us
    """

    UNREACHABLE = "unreachable"
    DENIED = "denied"
    REFUSED = "refused"
    CALL = "call"
    MEDIA = "media"


@dataclass(frozen=True, slots=True)
class Limits:
    """The worst that passes. setup: seconds; delay: milliseconds one way; loss: percent; mos: 1..5."""

    setup: float = 10.0
    delay: float = 400.0
    loss: float = 2.0
    mos: float = 3.5


@dataclass(frozen=True, slots=True)
class Findings:
    """What one call showed; None: it did not come to that.

    setup:  seconds from the order to the answer of the test number
    heard:  share of the reference signals that came back (0..1)
    delay:  milliseconds one way, half of the round trip; None also where the number does not echo
    loss:   percent of the packets toward the agent; jitter: milliseconds; mos: by the E-model
    error:  what ended it early, with its cause
    """

    number: str
    setup: float | None = None
    heard: float | None = None
    delay: float | None = None
    loss: float | None = None
    jitter: float | None = None
    mos: float | None = None
    error: str = ""
    cause: Cause | None = None

    def misses(self, limits: Limits) -> list[str]:
        """Every limit that is not kept, in words; none = good."""
        if self.error:
            return [self.error]
        found = []
        if not self.heard:
            found.append("the reference signal was not heard")
        elif self.heard < LEAST_HEARD:
            found.append(f"only {self.heard:.0%} of the reference signals came back")
        for value, limit, text in (
            (self.setup, limits.setup, "set-up took {:.2f} s, limit {:g} s"),
            (self.delay, limits.delay, "delay is {:.0f} ms, limit {:g} ms"),
            (self.loss, limits.loss, "loss is {:.2f} %, limit {:g} %"),
        ):
            if value is not None and value > limit:
                found.append(text.format(value, limit))
        if self.mos is not None and self.mos < limits.mos:
            found.append(f"MOS is {self.mos:.2f}, limit {limits.mos:g}")
        return found


def mos_of(delay: float, loss: float) -> float:
    """E-model (ITU-T G.107) for G.711 with concealment: delay in milliseconds one way, loss in percent."""
    late = 0.024 * delay + (0.11 * (delay - 177.3) if delay > 177.3 else 0.0)
    rating = 93.2 - late - 95.0 * loss / (loss + 25.1)
    rating = min(max(rating, 0.0), 100.0)
    return 1.0 + 0.035 * rating + rating * (rating - 60.0) * (100.0 - rating) * 7e-6


def as_text(findings: Findings, limits: Limits) -> str:
    """Lines for people, the verdict last."""

    def line(name: str, value: float | None, form: str) -> str:
        return f"{name:<10}{form.format(value) if value is not None else '-'}"

    misses = findings.misses(limits)
    heard = None if findings.heard is None else findings.heard * 100
    return "\n".join(
        [
            f"{'number':<10}{findings.number}",
            line("set-up", findings.setup, "{:.2f} s"),
            line("heard", heard, "{:.0f} %"),
            line("delay", findings.delay, "{:.0f} ms one way"),
            line("loss", findings.loss, "{:.2f} %"),
            line("jitter", findings.jitter, "{:.1f} ms"),
            line("MOS", findings.mos, "{:.2f}"),
            *(f"MISSED    {text}" for text in misses),
            "" if misses else "good",
        ]
    ).rstrip()


def as_json(findings: Findings, limits: Limits) -> str:
    misses = findings.misses(limits)
    return json.dumps({**asdict(findings), "limits": asdict(limits), "good": not misses, "misses": misses})


def as_metrics(findings: Findings, limits: Limits) -> str:
    """Prometheus text, for a textfile collector; what was not measured is not there."""
    values = {
        "good": (float(not findings.misses(limits)), "1 when every limit is kept."),
        "setup_seconds": (findings.setup, "From the order to the answer of the test number."),
        "heard_ratio": (findings.heard, "Share of the reference signals that came back."),
        "delay_seconds": (_thousandth(findings.delay), "One way, half of the round trip."),
        "loss_ratio": (None if findings.loss is None else findings.loss / 100, "Of packets to the agent."),
        "jitter_seconds": (_thousandth(findings.jitter), "Of packets to the agent."),
        "mos": (findings.mos, "Mean opinion score by the E-model."),
    }
    lines = [
        "# HELP tandem_probe_failed Why there are no figures.",
        "# TYPE tandem_probe_failed gauge",
        *(f'tandem_probe_failed{{cause="{cause}"}} {int(findings.cause is cause)}' for cause in Cause),
    ]
    for name, (value, text) in values.items():
        if value is not None:
            full = f"tandem_probe_{name}"
            lines += [f"# HELP {full} {text}", f"# TYPE {full} gauge", f"{full} {value:.6g}"]
    return "\n".join(lines)


def _thousandth(value: float | None) -> float | None:
    return None if value is None else value / 1000
