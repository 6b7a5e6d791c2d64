"""The process behind `pjsua.Pjsua`: one pjsua2 softphone, commands as JSON lines on stdin, events on stdout.

pjsua2 aborts the process on misuse and wants every call from one thread, hence the process and the single
loop (threadCnt 0). A dead Call object must go at once: its slot is used again.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from pathlib import Path
from typing import Any

import pjsua2.pjsua2 as pj  # type: ignore[import-untyped]

from tests.peers.voice import whole_wav


def tell(event: str, **facts: Any) -> None:
    sys.stdout.write(json.dumps({"event": event, **facts}) + "\n")
    sys.stdout.flush()


class Phone:
    """Endpoint, account, a looping player, and the calls by their pjsua number."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.calls: dict[int, Any] = {}
        self.dead: list[Any] = []
        self.closing: list[tuple[float, int, int, str]] = []
        self.recorded = 0
        self.endpoint = pj.Endpoint()
        self.endpoint.libCreate()
        config = pj.EpConfig()
        config.uaConfig.threadCnt = 0
        config.uaConfig.mainThreadOnly = True
        config.logConfig.level = config.logConfig.consoleLevel = 0
        self.endpoint.libInit(config)
        transport = pj.TransportConfig()
        transport.boundAddress = transport.publicAddress = "127.0.0.1"
        ports = []
        for kind in (pj.PJSIP_TRANSPORT_UDP, pj.PJSIP_TRANSPORT_TCP):
            number = self.endpoint.transportCreate(kind, transport)
            ports.append(int(self.endpoint.transportGetInfo(number).localName.rpartition(":")[2]))
        self.endpoint.libStart()
        self.endpoint.audDevManager().setNullDev()
        for name in ("PCMU/8000/1", "PCMA/8000/1", "G722/16000/1"):
            wanted = name.partition("/")[0] in options["codecs"]
            rank = 250 - options["codecs"].index(name.partition("/")[0]) if wanted else 0
            self.endpoint.codecSetPriority(name, rank)
        self.player = pj.AudioMediaPlayer()
        self.player.createPlayer(options["play"])
        self.account = _account(self)
        tell("ready", udp=ports[0], tcp=ports[1])

    def incoming(self, number: int) -> None:
        self.calls[number] = call = _call(self, number)
        info = call.getInfo()
        tell("incoming", call=number, caller=info.remoteUri)
        if self.options["answer"] == "auto":
            self.reply(number, 180)
            self.reply(number, 200)

    def reply(self, number: int, code: int) -> None:
        parameters = pj.CallOpParam(True)
        parameters.statusCode = code
        self.calls[number].answer(parameters)

    def dial(self, uri: str) -> None:
        call = _call(self, pj.PJSUA_INVALID_ID)
        call.makeCall(uri, pj.CallOpParam(True))
        self.calls[call.getId()] = call
        tell("dialling", call=call.getId())

    def obey(self, line: str) -> None:
        order = json.loads(line)
        name, number = order["do"], order.get("call", max(self.calls, default=-1))
        try:
            if name == "dial":
                self.dial(order["uri"])
            elif name == "answer":
                self.reply(number, order.get("code", 200))
            elif name == "hangup":
                self.calls[number].hangup(pj.CallOpParam())
            elif name == "hold":
                self.calls[number].setHold(pj.CallOpParam(True))
            elif name == "resume":
                parameters = pj.CallOpParam(True)
                parameters.opt.flag = pj.PJSUA_CALL_UNHOLD
                self.calls[number].reinvite(parameters)
            elif name == "digits":
                self.calls[number].dialDtmf(order["digits"])
            elif name == "refer":
                self.calls[number].xfer(order["uri"], pj.CallOpParam(True))
        except (pj.Error, KeyError) as error:
            tell("error", order=name, text=str(error))

    def _report_ended(self) -> None:
        """Tell of ended calls once their recordings are whole: the bridge closes a file in its own time."""
        for item in list(self.closing):
            since, number, code, file = item
            if not file or whole_wav(Path(file)) or time.monotonic() > since + 2:
                self.closing.remove(item)
                tell("ended", call=number, code=code)

    def run(self) -> None:
        """Until stdin ends or says quit; a call that is up is hung up."""
        text = b""
        while True:
            self.endpoint.libHandleEvents(10)
            self.dead.clear()
            self._report_ended()
            if not select.select([0], [], [], 0)[0]:
                continue
            data = os.read(0, 65536)
            text += data
            *lines, text = text.split(b"\n")
            for line in lines:
                if line.strip() == b"quit":
                    data = b""
                elif line.strip():
                    self.obey(line.decode())
            if not data:
                break
        self.endpoint.hangupAllCalls()
        self.endpoint.libHandleEvents(50)
        # interpreter exit with live pj objects aborts; libDestroy waits a second: leave without either
        tell("bye")
        os._exit(0)


def _account(phone: Phone) -> Any:
    class Account(pj.Account):  # type: ignore[misc]
        def onIncomingCall(self, prm: Any) -> None:  # noqa: N802
            phone.incoming(prm.callId)

    config = pj.AccountConfig()
    config.idUri = f"sip:{phone.options['user']}@127.0.0.1"
    config.natConfig.contactRewriteUse = config.natConfig.viaRewriteUse = 0
    config.natConfig.sdpNatRewriteUse = config.natConfig.sipOutboundUse = 0
    media = config.mediaConfig
    media.transportConfig.boundAddress = media.transportConfig.publicAddress = "127.0.0.1"
    media.transportConfig.port = phone.options["rtp_port"]
    media.transportConfig.portRange = 20
    media.lockCodecEnabled = False
    if phone.options["srtp"]:
        media.srtpUse, media.srtpSecureSignaling = pj.PJMEDIA_SRTP_MANDATORY, 0
    account = Account()
    account.create(config)
    return account


def _call(phone: Phone, number: int) -> Any:
    class Call(pj.Call):  # type: ignore[misc]
        recorder: Any = None
        file = ""

        def onCallState(self, prm: Any) -> None:  # noqa: N802
            info = self.getInfo()
            tell("state", call=info.id, state=info.stateText, code=int(info.lastStatusCode))
            if info.state == pj.PJSIP_INV_STATE_DISCONNECTED:
                self.recorder = None
                phone.dead.append(phone.calls.pop(info.id, None))
                phone.closing.append((time.monotonic(), info.id, int(info.lastStatusCode), self.file))

        def onCallMediaState(self, prm: Any) -> None:  # noqa: N802
            info = self.getInfo()
            for index, media in enumerate(info.media):
                if media.type != pj.PJMEDIA_TYPE_AUDIO or media.status != pj.PJSUA_CALL_MEDIA_ACTIVE:
                    continue
                audio = self.getAudioMedia(index)
                phone.player.startTransmit(audio)
                if self.recorder is None:
                    phone.recorded += 1
                    self.file = str(Path(phone.options["folder"]) / f"heard-{phone.recorded}.wav")
                    self.recorder = pj.AudioMediaRecorder()
                    self.recorder.createRecorder(self.file)
                    tell("recording", call=info.id, file=self.file)
                audio.startTransmit(self.recorder)
                tell("media", call=info.id)

        def onDtmfDigit(self, prm: Any) -> None:  # noqa: N802
            tell("digit", call=self.getId(), digit=prm.digit)

    return Call(phone.account, number)


if __name__ == "__main__":
    Phone(json.loads(sys.argv[1])).run()
