"""`/api/v1/calls`: calls and their legs as resources, commands as changes of them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from gateway.agents.people import UserRole
from gateway.agents.sessions import Session
from gateway.api.control_models import (
    AddLeg,
    CallFilter,
    CallOut,
    ChangeCall,
    ChangeLeg,
    Digits,
    PlaceCall,
    Supervise,
)
from gateway.api.idempotency import REPLAYED, Idempotency
from gateway.api.operation import Answer, Asked, Handler, Operation, json_answer, json_response
from gateway.api.problems import Problem
from gateway.api.sessions import SESSION
from gateway.calls.control import CallControl, ControlError
from gateway.calls.control_views import CallView, LegView
from gateway.calls.registry import RETRY_AFTER

CALLS = "/api/v1/calls"
_CALL = CALLS + "/{call}"
_LEG = _CALL + "/legs/{leg}"
_CONSULTATION = _CALL + "/consultation"
_FULL = frozenset({"draining", "no_disk", "max_calls", "trunk_max_calls", "calls_per_second"})
"""Reasons that pass by themselves: 503 over SIP, and so they are here."""


@dataclass(frozen=True, slots=True)
class CallList:
    calls: list[CallView]


def control_operations(control: CallControl) -> list[Operation]:
    """Everything that can be asked of, and done to, calls."""
    once = Idempotency()
    return [
        *_call_operations(control, _Maker("calls", once)),
        *_leg_operations(control, _Maker("legs", once)),
        *_consultation_operations(control, _Maker("consultation", once)),
    ]


def _call_operations(control: CallControl, make: _Maker) -> list[Operation]:
    async def listed(asked: Asked[None, CallFilter]) -> web.Response:
        wanted = asked.query
        found = [
            call
            for call in control.calls()
            if wanted.interaction in ("", call.interaction)
            and (not wanted.agent or any(leg.login == wanted.agent for leg in call.legs))
            and (not wanted.trunk or any(leg.trunk == wanted.trunk for leg in call.legs))
        ]
        return json_response(CallList, CallList(found))

    async def place(asked: Asked[PlaceCall, None]) -> web.Response:
        body = asked.body
        placed = await control.place(
            agent=body.agent, number=body.number, trunk=body.trunk, digits=body.digits
        )
        return _created(placed)

    async def show(asked: Asked[None, None]) -> web.Response:
        return json_response(CallView, control.show(asked.path("call")))

    async def change(asked: Asked[ChangeCall, None]) -> web.Response:
        if asked.body.music is not None:
            await control.set_music(asked.path("call"), asked.body.music)
        elif asked.body.stage is not None:
            await control.set_stage(asked.path("call"), asked.body.stage)
        return json_response(CallView, control.show(asked.path("call")))

    async def end(asked: Asked[None, None]) -> web.Response:
        await control.hang_up(asked.path("call"), person=_agent(asked))
        return web.Response(status=204)

    async def add(asked: Asked[AddLeg, None]) -> web.Response:
        body = asked.body
        added = await control.add(
            asked.path("call"), body.number, by=body.by, trunk=body.trunk, digits=body.digits
        )
        return _created(added)

    return [
        make("GET", CALLS, "listCalls", "Calls that are up, oldest first", listed, _LIST, query=CallFilter),
        make(
            "POST", CALLS, "placeCall", "Place a call for an agent", place, _CREATED,
            body=PlaceCall, errors={404, 409, 503},
            description="While the agent holds a call, this one is a consultation of it.",
        ),
        make("GET", _CALL, "showCall", "A call with its legs", show, _SEEN),
        make(
            "PATCH", _CALL, "changeCall", "Set its hold-music policy, or say where the contact center has it",
            change, _SEEN, body=ChangeCall,
        ),
        make("DELETE", _CALL, "endCall", "Hang up every party", end, _DONE, description=_HOST),
        make(
            "POST", _CALL + "/legs", "addLeg", "Call a further party into the call", add, _CREATED,
            body=AddLeg, errors={409},
        ),
    ]  # fmt: skip


def _leg_operations(control: CallControl, make: _Maker) -> list[Operation]:
    def view(asked: Asked[Any, Any]) -> LegView:
        call = control.show(asked.path("call"))
        for leg in call.legs:
            if leg.id == asked.path("leg"):
                return leg
        raise ControlError(404, "unknown_leg", f"there is no participant {asked.path('leg')} in the call")

    async def show(asked: Asked[None, None]) -> web.Response:
        return json_response(LegView, view(asked))

    async def change(asked: Asked[ChangeLeg, None]) -> web.Response:
        body, where = asked.body, (asked.path("call"), asked.path("leg"))
        if body.muted is not None:
            await control.mute(*where, body.muted)
        elif body.holding is not None:
            await (control.hold(*where) if body.holding else control.resume(*where))
        elif body.supervision is not None:
            await control.supervise_mode(*where, body.supervision)
        elif body.by is not None:
            await (control.hold_party if body.on_hold else control.resume_party)(*where, body.by)
        return json_response(LegView, view(asked))

    async def remove(asked: Asked[None, None]) -> web.Response:
        await control.remove(asked.path("call"), asked.path("leg"), person=_agent(asked))
        return web.Response(status=204)

    async def hang_up(asked: Asked[None, None]) -> web.Response:
        await control.hang_up(asked.path("call"), asked.path("leg"), person=_agent(asked))
        return web.Response(status=204)

    async def answer(asked: Asked[None, None]) -> web.Response:
        await control.answer(asked.path("call"), asked.path("leg"))
        return web.Response(status=204)

    async def digits(asked: Asked[Digits, None]) -> web.Response:
        await control.digits(asked.path("call"), asked.path("leg"), asked.body.digits)
        return web.Response(status=204)

    async def consult(asked: Asked[CallOut, None]) -> web.Response:
        body = asked.body
        return _created(
            await control.consult(
                asked.path("call"), asked.path("leg"), body.number, trunk=body.trunk, digits=body.digits
            )
        )

    async def transfer(asked: Asked[CallOut, None]) -> web.Response:
        body = asked.body
        await control.transfer(
            asked.path("call"), asked.path("leg"), body.number, trunk=body.trunk, digits=body.digits
        )
        return web.Response(status=202)

    async def supervise(asked: Asked[Supervise, None]) -> web.Response:
        body = asked.body
        return _created(
            await control.supervise(asked.path("call"), asked.path("leg"), body.number, body.mode)
        )

    return [
        make("GET", _LEG, "showLeg", "One party of a call", show, _LEG_SEEN),
        make(
            "PATCH", _LEG, "changeLeg", "Mute, hold, put on hold, or change how a supervisor takes part",
            change, _LEG_SEEN, body=ChangeLeg, errors={409},
        ),
        make(
            "DELETE", _LEG, "removeLeg", "Disconnect a party, not the others", remove, _DONE, errors={409},
            description=_HOST,
        ),
        make(
            "POST", _LEG + "/hangup", "hangUpLeg", "Hang up as if the party had done so itself",
            hang_up, _DONE, errors={409}, description=_HOST,
        ),
        make(
            "POST", _LEG + "/answer", "answerLeg", "Let a telephone that rings answer",
            answer, _DONE, errors={409},
            description="A browser's page answers by itself; a SIP telephone is asked by NOTIFY with "
            "`Event: talk`, when its ringing lists talk in Allow-Events or the trunk's `talk_event` is "
            "`always`. Events tell when it has answered.",
        ),
        make(
            "POST", _LEG + "/digits", "sendDigits", "Send DTMF to the party; answered when the last is over",
            digits, _DONE, body=Digits, errors={409},
            description="This party alone hears them, whoever else is in the call; what a party presses on "
            "its own keypad reaches everybody who hears the party.",
        ),
        make(
            "POST", _LEG + "/consultation", "consult",
            "The party holds the call and consults a number, in a call of its own", consult, _CREATED,
            body=CallOut, errors={409},
        ),
        make(
            "POST", _LEG + "/transfer", "transfer", "Blind: a number takes the party's place", transfer,
            Answer(202, "It is being called; events tell how it goes"), body=CallOut, errors={409},
        ),
        make(
            "POST", _LEG + "/supervisors", "supervise", "Call a supervisor of this party's conversation",
            supervise, _CREATED, body=Supervise, errors={409},
        ),
    ]  # fmt: skip


def _consultation_operations(control: CallControl, make: _Maker) -> list[Operation]:
    async def merge(asked: Asked[None, None]) -> web.Response:
        return json_response(CallView, await control.merge(asked.path("call")))

    async def transfer(asked: Asked[None, None]) -> web.Response:
        await control.complete_transfer(asked.path("call"))
        return web.Response(status=204)

    async def back(asked: Asked[None, None]) -> web.Response:
        return json_response(CallView, await control.back(asked.path("call")))

    either = "`call` is the held call or its consultation."
    return [
        make(
            "POST", _CONSULTATION + "/merge", "mergeConsultation", "Make one conference of both calls",
            merge, _SEEN, errors={409}, description=either,
        ),
        make(
            "POST", _CONSULTATION + "/transfer", "completeTransfer",
            "Attended: the consulted party takes the agent's place", transfer, _DONE, errors={409},
            description=f"{either} One who still rings takes it when he answers: until then the party who "
            "waits hears ringing, and the agent is in the held call again; events tell. When the held call "
            "was a consultation itself, the agent is not hung up: he has the call back that he holds for it.",
        ),
        make(
            "DELETE", _CONSULTATION, "endConsultation", "End the consultation and go back to the held call",
            back, _SEEN, errors={409}, description=either,
        ),
    ]  # fmt: skip


# ---- what the operations have in common ----

_HOST = (
    "In a conference of three and more an agent's own session may do this to others only when he is host, "
    "or nobody is: 403 `not_host`. Tokens, supervisors and administrators are not bound by that."
)

_LIST = json_answer(200, "The calls", CallList)
_SEEN = json_answer(200, "The call as it is now", CallView)
_LEG_SEEN = json_answer(200, "The party as it is now", LegView)
_DONE = Answer(204, "Done")
_CREATED = json_answer(
    201,
    "It is being called; events tell how it goes",
    CallView,
    Location="where the call is found",
)


def _agent(asked: Asked[Any, Any]) -> str:
    """The agent who asks with a session of his own; "" for programs, supervisors and administrators."""
    session: Session | None = asked.request.get(SESSION)
    if session is None or session.person.role.reaches(UserRole.SUPERVISOR):
        return ""
    return session.person.login


def _created(call: CallView) -> web.Response:
    return json_response(CallView, call, status=201, headers={"Location": f"{CALLS}/{call.id}"})


class _Maker:
    """Operations under one tag; a POST is done once for each Idempotency-Key."""

    def __init__(self, tag: str, once: Idempotency) -> None:
        self._tag, self._once = tag, once

    def __call__(
        self,
        method: str,
        path: str,
        name: str,
        summary: str,
        act: Handler,
        answer: Answer,
        *,
        errors: set[int] | frozenset[int] = frozenset(),
        **more: Any,
    ) -> Operation:
        repeatable = method == "POST"
        if repeatable:
            text = "`true` when the Idempotency-Key was seen before and nothing was done again"
            headers: Mapping[str, str] = {**answer.headers, REPLAYED: text}
            answer = Answer(answer.status, answer.description, answer.content, headers)
        return Operation(
            method=method,
            path=path,
            name=name,
            tag=self._tag,
            summary=summary,
            handler=self._handler(act, repeatable),
            answers=(answer,),
            errors=frozenset(errors),
            repeatable=repeatable,
            **more,
        )

    def _handler(self, act: Handler, repeatable: bool) -> Handler:
        async def handle(asked: Asked[Any, Any]) -> web.StreamResponse:
            try:
                if repeatable:
                    return await self._once.once(asked.request, functools.partial(act, asked))
                return await act(asked)
            except ControlError as error:
                if error.reason in _FULL:
                    raise Problem(
                        503, error.text, reason=error.reason, headers={"Retry-After": RETRY_AFTER}
                    ) from error
                raise Problem(error.status, error.text, reason=error.reason) from error

        return handle
