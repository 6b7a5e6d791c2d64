"""Peers that the benchmark configures itself: `--with asterisk`, `--with baresip`, `--with tandem=ROOT`."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

from tests.bench.sides import ROOT
from tests.bench.targets import Command, Gateway, Target
from tests.support.ports import free_port

_LOOPBACK = "127.0.0.1"


class RecipeUnknown(ValueError):
    """No such recipe, or what it needs is not installed."""


def make(text: str) -> Target:
    """NAME or NAME=ROOT. asterisk: ROOT is the folder of another Debian that has it; tandem: a checkout."""
    name, _, root = text.partition("=")
    if name == "tandem":
        folder = Path(root).resolve()
        if not (folder / "gateway").is_dir():
            raise RecipeUnknown(f"no checkout of Tandem in {folder}")
        return Gateway(folder, f"tandem {folder.name}")
    if name not in RECIPES:
        raise RecipeUnknown(f"no recipe for {name!r}; there are {', '.join(sorted(RECIPES))} and tandem")
    program = Path(root, "usr/sbin/asterisk") if root else shutil.which(name)
    if program is None or not Path(program).exists():
        raise RecipeUnknown(f"{name} is not installed")
    command = [sys.executable, "-m", "tests.bench.recipes", name, *([root] if root else [])]
    return Command(name, shlex.join(command), (_LOOPBACK, free_port()), ROOT)


def asterisk(folder: Path, root: str) -> list[str]:
    """PJSIP, two endpoints; only the modules that such a call needs are loaded."""
    host, port = _environment("LISTEN").split(":")
    first, last = _environment("PORTS").split("-")
    pki, caller, callee = Path(_environment("PKI")), _environment("CALLER"), _environment("CALLEE")
    for name in ("var", "run", "spool", "log"):
        (folder / name).mkdir()
    modules = Path(root or "/", "usr/lib/x86_64-linux-gnu/asterisk/modules")
    if not modules.is_dir():
        modules = Path(root or "/", "usr/lib/asterisk/modules")
    files = {
        "asterisk.conf": f"""
[directories]
astetcdir => {folder}
astmoddir => {modules}
astvarlibdir => {folder}/var
astdbdir => {folder}/var
astkeydir => {folder}/var
astdatadir => {Path(root or "/", "usr/share/asterisk")}
astagidir => {folder}/var
astspooldir => {folder}/spool
astrundir => {folder}/run
astlogdir => {folder}/log
[options]
maxfiles = 20000
""",
        "modules.conf": "[modules]\nautoload = no\n" + "".join(f"load = {name}.so\n" for name in _MODULES),
        "logger.conf": "[logfiles]\nconsole => notice,warning,error\n",
        "rtp.conf": f"[general]\nrtpstart={first}\nrtpend={last}\n",
        "extensions.conf": """
[from-center]
exten => _[+0-9].,1,Dial(PJSIP/${EXTEN}@callee,60)
 same => n,Hangup(${HANGUPCAUSE})
""",
        "pjsip.conf": f"""
[udp]
type=transport
protocol=udp
bind={host}:{port}
[tls]
type=transport
protocol=tls
bind={host}:{_free()}
cert_file={pki / "gateway.pem"}
priv_key_file={pki / "gateway.key"}
ca_list_file={pki / "roots.pem"}
verify_server=no
method=tlsv1_2
[center]
type=endpoint
transport=udp
context=from-center
disallow=all
allow=alaw
direct_media=no
aors=center
[center]
type=aor
contact=sip:{caller}
[center]
type=identify
endpoint=center
match={caller.split(":")[0]}
[callee]
type=endpoint
transport=tls
context=from-center
disallow=all
allow=alaw
direct_media=no
media_encryption=sdes
aors=callee
[callee]
type=aor
contact=sip:{callee}\\;transport=tls
""",
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    words = ["asterisk", "-f", "-C", str(folder / "asterisk.conf")]
    if not root:
        return words
    libraries = Path(root, "usr/lib/x86_64-linux-gnu")
    return [
        str(libraries / "ld-linux-x86-64.so.2"),
        "--library-path",
        f"{libraries}:{libraries}/pulseaudio",
        str(Path(root, "usr/sbin/asterisk")),
        *words[1:],
    ]


_MODULES = (
    *("res_sorcery_config", "res_sorcery_memory", "res_sorcery_astdb", "res_timing_timerfd", "res_pjproject"),
    *("res_pjsip", "res_pjsip_session", "res_pjsip_sdp_rtp", "res_pjsip_endpoint_identifier_ip"),
    *(
        "res_pjsip_pubsub",
        "res_pjsip_caller_id",
        "res_pjsip_rfc3326",
        "res_rtp_asterisk",
        "res_srtp",
        "chan_pjsip",
    ),
    *("bridge_simple", "bridge_native_rtp", "codec_alaw", "pbx_config", "app_dial"),
)


def baresip(folder: Path, _root: str) -> list[str]:
    """Its b2bua module, which decodes and encodes every packet on the way."""
    host, port = _environment("LISTEN").split(":")
    first, last = _environment("PORTS").split("-")
    callee = _environment("CALLEE")
    (folder / "config").write_text(
        f"""
sip_listen {host}:{port}
sip_cafile {Path(_environment("PKI"), "roots.pem")}
sip_certificate {_joined(folder)}
sip_verify_server no
call_max_calls 1000
call_local_timeout 120
audio_source aubridge,a
audio_player aubridge,b
ausrc_srate 8000
auplay_srate 8000
audio_buffer 20-160
rtp_ports {first}-{last}
net_interface {host}
module_path {_modules()}
module g711.so
module srtp.so
module aubridge.so
module_app account.so
module_app b2bua.so
"""
    )
    (folder / "accounts").write_text(
        f"<sip:in@{host}>;regint=0;catchall=yes;answermode=manual;b2bua=inbound;audio_codecs=pcma\n"
        f"<sip:out@{host};transport=tls>;regint=0;b2bua=outbound;audio_codecs=pcma;mediaenc=srtp-mand"
        f';outbound="sip:{callee};transport=tls"\n'
    )
    return ["baresip", "-f", str(folder)]


def _joined(folder: Path) -> Path:
    """Certificate and key in one file, as baresip wants them."""
    pki, file = Path(_environment("PKI")), folder / "own.pem"
    file.touch(mode=0o600)
    file.write_text((pki / "gateway.key").read_text() + (pki / "gateway.pem").read_text())
    return file


def _modules() -> str:
    return "/usr/lib/baresip/modules"


def _free() -> int:
    return free_port(also_udp=False)


def _environment(name: str) -> str:
    return os.environ[f"TANDEM_BENCH_{name}"]


RECIPES = {"asterisk": asterisk, "baresip": baresip}


def main() -> None:
    """Write the configuration and become the peer."""
    folder = Path(_environment("FOLDER"))
    words = RECIPES[sys.argv[1]](folder, sys.argv[2] if len(sys.argv) > 2 else "")
    os.execvp(words[0], words)


if __name__ == "__main__":
    main()
