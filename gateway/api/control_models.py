"""What the control API is told: the bodies of its requests."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from gateway.api.operation import Parameters, Strict
from gateway.calls.audibility import MusicPolicy, SupervisorMode

Number = Annotated[
    str,
    Field(min_length=1, max_length=64, description="telephone number, best as +E.164; an extension or name"),
]
TrunkName = Annotated[str, Field(max_length=64, description="the trunk to call over; empty: routing decides")]
AfterAnswer = Annotated[
    str,
    Field(
        max_length=64,
        pattern=r"^[0-9A-Da-d*#,]*$",
        description="DTMF digits for the called party when it has answered, as an attendant wants them; "
        "a comma waits a second",
    ),
]
LegRef = Annotated[str, Field(min_length=1, max_length=64, description="id of a leg")]


class CallFilter(Parameters):
    agent: str = Field(default="", description="calls with this agent, by login")
    trunk: str = Field(default="", description="calls with a leg on this trunk")
    interaction: str = Field(default="", description="calls of this global interaction id")


class PlaceCall(Strict):
    """First the agent's telephone is rung; when it is answered, `number` is called for him."""

    agent: Annotated[
        str, Field(min_length=1, max_length=254, description="login of an agent, or the number to ring")
    ]
    number: Number
    trunk: TrunkName = ""
    digits: AfterAnswer = ""


class ChangeCall(Strict):
    """Exactly one change."""

    music: MusicPolicy | None = Field(default=None, description="who hears music while somebody holds")
    stage: Literal["ivr", "queue", "ringing", "connected"] | None = Field(
        default=None,
        description="where the contact center has the caller now; ivr and queue, told before or within 5 "
        "seconds after it answers, become ivr_time and queue_time of the row, until connected is told",
    )

    @model_validator(mode="after")
    def _one_change(self) -> Self:
        if (self.music is None) == (self.stage is None):
            raise ValueError("give exactly one of music, stage")
        return self


class AddLeg(Strict):
    """A further party; those present hear it ring."""

    number: Number
    trunk: TrunkName = ""
    digits: AfterAnswer = ""
    by: LegRef | None = Field(default=None, description="who invites and becomes host; by default an agent")


class ChangeLeg(Strict):
    """Exactly one change, so that it happens whole or not at all. What is so already stays so."""

    muted: bool | None = Field(default=None, description="whether the party is heard by nobody")
    holding: bool | None = Field(default=None, description="whether the party holds the whole call")
    on_hold: bool | None = Field(
        default=None, description="whether this one party is put on hold and hears music; needs `by`"
    )
    by: LegRef | None = Field(default=None, description="who puts the party on hold; with `on_hold` only")
    supervision: SupervisorMode | None = Field(default=None, description="how a supervisor takes part")

    @model_validator(mode="after")
    def _one_change(self) -> Self:
        changes = [
            value for value in (self.muted, self.holding, self.on_hold, self.supervision) if value is not None
        ]
        if len(changes) != 1:
            raise ValueError("give exactly one of muted, holding, on_hold, supervision")
        if (self.on_hold is not None) != (self.by is not None):
            raise ValueError("`by` goes with `on_hold`, and `on_hold` needs it")
        return self


class Digits(Strict):
    digits: Annotated[
        str,
        Field(
            min_length=1, max_length=64, pattern=r"^[0-9A-Da-d*#]+$", description="DTMF digits: 0-9 * # A-D"
        ),
    ]


class CallOut(Strict):
    """Whom to consult, or to transfer to."""

    number: Number
    trunk: TrunkName = ""
    digits: AfterAnswer = ""


class Supervise(Strict):
    """Who is called to supervise, and how he takes part."""

    number: Number
    mode: SupervisorMode = SupervisorMode.LISTEN
