"""tandem.toml: what is right loads, what is wrong names its line and its cure."""

from __future__ import annotations

import re
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from gateway import config_models
from gateway.config import Config, examine, load
from gateway.config_files import file_warnings
from gateway.config_lines import KeyLines
from gateway.config_trunk import Trunk
from gateway.config_types import Section
from gateway.errors import ConfigError
from gateway.model import PartyType

ROOT = Path(__file__).parents[2]
KEY = ec.generate_private_key(ec.SECP256R1())


def certify(
    folder: Path, *names: str, days: int = 90, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey = KEY
) -> None:
    """`cert.pem` and `key.pem` in `folder`, self-signed, with `names` as DNS names."""
    now = datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=400))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )


def write(folder: Path, text: str) -> Path:
    path = folder / "tandem.toml"
    path.write_text(text)
    return path


SIP = """[[trunk]]
name = "cc"
peers = ["udp:127.0.0.1:5070"]
"""
TEAMS = """[sip]
listen = ["udp:127.0.0.1:5060", "tls:127.0.0.1:5061"]
certificate = "cert.pem"
private_key = "key.pem"
[[trunk]]
name = "teams"
kind = "direct-routing"
tenants = ["sbc.example.com"]
"""


# ---------------------------------------------------------------------------------- what is right


def test_the_annotated_default_starts_on_a_plain_machine() -> None:
    config = load(ROOT / "config" / "tandem.toml")
    assert config.trunk("contact-center").party is PartyType.AGENT
    assert config.gateway.state_dir == ROOT / "var"
    assert config.database_url == f"sqlite:///{ROOT / 'var' / 'tandem.db'}"
    assert config.journal_dir == ROOT / "var" / "journal"
    assert config.max_calls == 1250


def _default_keys(path: Path) -> dict[tuple[str, ...], str]:
    """Every key of the annotated default, commented out or not: (section, key) -> value text."""
    section: tuple[str, ...] = ()
    found: dict[tuple[str, ...], str] = {}
    for line in path.read_text().splitlines():
        text = line.removeprefix("# ")
        if header := re.fullmatch(r"\[\[?([a-z_.]+)\]?\]", text):
            section = tuple(header[1].split("."))
        elif pair := re.fullmatch(r"([a-z_0-9]+) = (.+)", text):
            found.setdefault((*section, pair[1]), pair[2])
    return found


def _model_keys(model: type[Section], prefix: tuple[str, ...]) -> dict[tuple[str, ...], Any]:
    return {(*prefix, info.alias or name): info.default for name, info in model.model_fields.items()}


def test_the_annotated_default_names_every_key_with_its_default() -> None:
    m = config_models
    sections: list[tuple[type[Section], tuple[str, ...]]] = [
        (m.Gateway, ("gateway",)),
        (m.Log, ("log",)),
        (m.Sip, ("sip",)),
        (m.Resolver, ("resolver",)),
        (m.Media, ("media",)),
        (m.Http, ("http",)),
        (m.Limits, ("limits",)),
        (m.Journal, ("journal",)),
        (m.Cdr, ("cdr",)),
        (m.Webhook, ("cdr", "webhook")),
        (m.WebChat, ("web_chat",)),
        (m.Webhook, ("web_chat", "webhook")),
        (Trunk, ("trunk",)),
        (m.Route, ("route",)),
        (m.Agent, ("agent",)),
        (m.AgentRules, ("agent_states",)),
        (m.SignIn, ("sign_in",)),
        (m.Probe, ("probe",)),
        (m.Graph, ("graph",)),
    ]
    assert {name for _, (name, *_) in sections} == {i.alias or n for n, i in Config.model_fields.items()}
    known = {
        key: default for model, prefix in sections for key, default in _model_keys(model, prefix).items()
    }
    known.pop(("cdr", "webhook"))
    known.pop(("web_chat", "webhook"))
    written = _default_keys(ROOT / "config" / "tandem.toml")
    assert written.keys() == known.keys()

    bare = load(ROOT / "config" / "tandem.toml")
    differs_on_purpose = {("gateway", "state_dir"), ("trunk", "name"), ("trunk", "peers"), ("trunk", "party")}
    raw = tomllib.loads((ROOT / "config" / "tandem.toml").read_text())
    defaults = Config.model_validate({"trunk": [{"name": "x", "peers": ["udp:127.0.0.1:1"]}]})
    for name, content in raw.items():
        for key in content[0] if isinstance(content, list) else content:
            if (name, key) not in differs_on_purpose:
                section = {"trunk": "trunks"}.get(name, name)
                ours, theirs = getattr(bare, section), getattr(defaults, section)
                pair = (ours[0], theirs[0]) if isinstance(ours, tuple) else (ours, theirs)
                assert getattr(pair[0], key) == getattr(pair[1], key), f"[{name}] {key}"


SECRETS = ("DATABASE", "TOKEN_DESKTOP", "WEBHOOK_SECRET", "PBX_PASSWORD", "GRAPH_SECRET")


def test_the_production_example_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SECRETS:
        monkeypatch.setenv(f"TANDEM_{name}", f"the {name} value")
    monkeypatch.setenv("TANDEM_DATABASE", "postgresql://tandem:pw@db.example.com/tandem")
    certify(tmp_path, "sbc.example.com", "sbc.example.net", key=rsa.generate_private_key(65537, 2048))
    text = (ROOT / "config" / "production.example.toml").read_text()
    text = text.replace("/etc/tandem/tls/fullchain.pem", "cert.pem").replace(
        "/etc/tandem/tls/key.pem", "key.pem"
    )
    found = examine(write(tmp_path, text))
    assert not found.errors
    assert not [str(warning) for warning in found.warnings if "no route" not in str(warning)]
    config = load(tmp_path / "tandem.toml")
    assert config.database_url.startswith("postgresql://")
    assert len(set(config.secrets())) == len(SECRETS)
    teams = config.trunk("teams")
    assert teams.may_present("SBC.example.com", "+4930123")
    assert not teams.may_present("sbc.example.com", "+4940123")
    assert not teams.may_present("sbc.example.com", "x+4930123")


def test_direct_routing_is_what_microsoft_asks_for_without_being_told(tmp_path: Path) -> None:
    certify(tmp_path, "*.example.com")
    trunk = load(write(tmp_path, TEAMS)).trunks[0]
    assert [peer.split(":")[1] for peer in trunk.peers] == [
        f"sip{n}.pstnhub.microsoft.com" for n in ("", "2", "3")
    ]
    assert trunk.admits("52.114.7.24")
    assert trunk.admits("::ffff:52.122.1.1")
    assert not trunk.admits("52.111.255.255")
    assert trunk.party is PartyType.TEAMS_EXPERT
    assert trunk.srtp
    assert not trunk.late_offer
    assert (trunk.early_media, trunk.reliable_provisional) == ("ringback", "never")
    assert trunk.options_interval == 60
    assert trunk.progress_after == 8
    assert load(write(tmp_path, SIP)).trunks[0].progress_after == 0


def test_a_direct_routing_trunk_without_tenants_is_the_gateways_own_name(tmp_path: Path) -> None:
    certify(tmp_path, "sbc.example.org")
    text = TEAMS.replace('tenants = ["sbc.example.com"]\n', "") + '[gateway]\nfqdn = "sbc.example.org"\n'
    assert load(write(tmp_path, text)).trunks[0].tenants == ("sbc.example.org",)


def test_relative_paths_are_taken_from_the_files_folder(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    path = write(tmp_path / "etc", '[gateway]\nstate_dir = "../state"\ndatabase = "sqlite:///x.db"\n')
    config = load(path)
    assert config.gateway.state_dir == tmp_path / "state"
    assert config.database_url == f"sqlite:///{tmp_path / 'etc' / 'x.db'}"


def test_secrets_come_from_environment_and_files_and_never_print(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC_PASSWORD", "hunter2-env")
    (tmp_path / "token").write_text("hunter2-file\n")
    config = load(
        write(
            tmp_path,
            '[http]\ntokens = [{name = "ops", secret = "file:token"}]\n'
            + SIP
            + 'username = "u"\npassword = "env:CC_PASSWORD"\n',
        )
    )
    assert sorted(config.secrets()) == ["hunter2-env", "hunter2-file"]
    assert "hunter2" not in repr(config) + str(config) + config.model_dump_json()


def test_a_config_is_frozen(tmp_path: Path) -> None:
    config = load(write(tmp_path, SIP))
    with pytest.raises(ValueError, match="frozen"):
        setattr(config.trunks[0], "name", "other")  # noqa: B010


# ---------------------------------------------------------------------------------- what is wrong

REFUSALS: list[tuple[str, str, int, str]] = [
    ("unknown key", '[sip]\n\nlistne = ["udp:127.0.0.1:5060"]\n', 3, "did you mean 'listen'"),
    ("unknown section", "[sipp]\n", 1, "did you mean 'sip'"),
    ("unknown trunk key", SIP + 'pears = ["x"]\n', 4, "did you mean 'peers'"),
    ("unknown nested key", '[cdr.webhook]\nurl = "http://h/"\nsecret = "env:HOME"\nurk = 1\n', 4, "'url'"),
    ("missing key", '# c\n[[trunk]]\nname = "a"\n', 2, r"\[\[trunk\]\] 1 needs the key 'peers'"),
    ("syntax", "[sip]\nlisten = \n", 2, "not TOML"),
    ("syntax at the end", "[sip]\nlisten = [\n", 2, "not TOML"),
    ("wrong kind of endpoint", SIP.replace("udp:", "sctp:"), 3, "udp:, tcp: or tls:"),
    ("endpoint in a long list", '[sip]\nlisten = [\n "udp:127.0.0.1:1",\n "tcp:::1:5"\n]\n', 4, "brackets"),
    ("peer without port", SIP.replace(":5070", ""), 3, "host:port"),
    ("name with half a port", SIP.replace("127.0.0.1:5070", "pbx.example.com:"), 3, "host:port"),
    ("peer that is a number", SIP.replace("127.0.0.1:", ""), 3, "neither a host name"),
    ("peer with port 0", SIP.replace("5070", "0"), 3, "no port"),
    ("listening on a name", '[sip]\nlisten = ["udp:example.com:5060"]\n', 2, "address of this machine"),
    ("listed twice", '[sip]\nlisten = ["udp:127.0.0.1:5060", "udp:127.0.0.1:5060"]\n', 2, "twice"),
    ("tls without certificate", '[sip]\nlisten = ["tls:127.0.0.1:5061"]\n', 2, "needs a certificate"),
    ("certificate unreadable", '[sip]\ncertificate = "no.pem"\nprivate_key = "no.pem"\n', 2, "No such file"),
    ("certificate without key", '[sip]\ncertificate = "cert.pem"\n', 2, "private_key"),
    ("not a certificate", '[sip]\ncertificate = "key.pem"\nprivate_key = "key.pem"\n', 2, "no PEM cert"),
    ("not a key", '[sip]\ncertificate = "cert.pem"\nprivate_key = "cert.pem"\n', 3, "no usable private key"),
    ("stranger's key", '[sip]\ncertificate = "cert.pem"\nprivate_key = "other.pem"\n', 3, "is not the key"),
    ("roots unreadable", '[sip]\ntrusted_roots = "no.pem"\n', 2, "No such file"),
    ("music unreadable", '[media]\nmusic = "no.wav"\n', 2, "No such file"),
    ("music empty", '[media]\nmusic = "empty"\n', 2, "is empty"),
    ("hold_music", '[media]\nhold_music = "loud"\n', 2, "'remaining', 'alone' or 'never'"),
    ("rtpengine", '[media]\nrtpengine = "tcp:127.0.0.1:1"\n', 2, '"embedded", or "udp:'),
    ("media address", '[media]\naddress = "example.com"\n', 2, "not an IP address"),
    ("ports odd", "[media]\nports = [30001, 39999]\n", 2, "start at 30002"),
    ("ports few", "[media]\nports = [30000, 30007]\n", 2, "too few"),
    ("ports turned", "[media]\nports = [39998, 30000]\n", 2, "lower one first"),
    ("ports too high", "[media]\nports = [60000, 70000]\n", 2, "65535"),
    ("ports no numbers", '[media]\nports = ["30000", 39999]\n', 2, "integer"),
    ("too many calls for the ports", "[media]\nports = [30000, 30099]\n[limits]\nmax_calls = 13\n", 4, "104"),
    ("sip inside media ports", '[sip]\nlisten = ["udp:127.0.0.1:30010"]\n', 2, "lies inside"),
    ("http on a sip port", '[http]\nlisten = "127.0.0.1:5060"\n', 2, "also a SIP listener"),
    ("route from nowhere", SIP + '[[route]]\nfrom = "dd"\nto = "cc"\n', 5, "no trunk is called 'dd'"),
    ("route to nowhere", SIP + '[[route]]\nfrom = "cc"\nto = "ccc"\n', 6, "did you mean 'cc'"),
    (
        "bad pattern",
        SIP + "[[route]]\nfrom='cc'\nto='cc'\nnumber = '+49.*'\n",
        7,
        "nothing to repeat at character 1",
    ),
    ("bad rewrite", SIP + "[[route]]\nfrom='cc'\nto='cc'\nnumber='1'\nrewrite='\\2'\n", 8, "invalid group"),
    ("route never reached", SIP + "[[route]]\nfrom='cc'\nto='cc'\n" * 2, 7, "earlier route"),
    ("two trunks, one name", SIP + SIP.replace("5070", "5071"), 5, "second trunk"),
    ("two trunks, one peer", SIP + SIP.replace("cc", "dd"), 6, "belongs to trunk 'cc'"),
    (
        "two trunks, one range",
        SIP
        + 'allow_from = ["10.0.0.0/8"]\n'
        + SIP.replace("cc", "d").replace("70", "71")
        + 'allow_from = ["10.1.0.0/16"]\n',
        8,
        "overlaps 10.0.0.0/8 of trunk 'cc'",
    ),
    ("range with host bits", SIP + 'allow_from = ["10.0.0.1/8"]\n', 4, "host bits"),
    ("peer is ourselves", SIP.replace("5070", "5060"), 3, "our own listener"),
    ("udp peer, no udp listener", '[sip]\nlisten = ["tcp:127.0.0.1:5060"]\n' + SIP, 5, "no udp listener"),
    ("every address, none told", '[sip]\nlisten = ["udp:0.0.0.0:5060"]\n' + SIP, 5, "set advertise"),
    ("user without password", SIP + 'username = "u"\n', 4, "set password too"),
    ("secret in the file", SIP + 'username = "u"\npassword = "hunter2"\n', 5, "env:NAME"),
    (
        "secret not set",
        SIP + 'username = "u"\npassword = "env:NO_SUCH_THING"\n',
        5,
        "NO_SUCH_THING is not set",
    ),
    ("secret file missing", SIP + 'username = "u"\npassword = "file:nope"\n', 5, "No such file"),
    ("secret file empty", SIP + 'username = "u"\npassword = "file:empty"\n', 5, "is empty"),
    ("password in the URL", '[gateway]\ndatabase = "postgresql://u:hunter2@h/d"\n', 2, "password"),
    ("another database", '[gateway]\ndatabase = "mysql://h/d"\n', 2, "neither sqlite"),
    ("tenants on a sip trunk", SIP + 'tenants = ["a.example"]\n', 4, "for kind direct-routing"),
    ("teams_expert on a sip trunk", SIP + 'party = "teams_expert"\n', 4, "external"),
    ("unknown kind", SIP + 'kind = "pstn"\n', 4, "'sip' or 'direct-routing'"),
    ("unknown codec", SIP + 'codecs = ["PCMA", "G729"]\n', 4, "'PCMA', 'PCMU' or 'G722'"),
    ("session timer below the RFC", SIP + "session_expires = 60\n", 4, "RFC 4028"),
    ("min_se above the timer", SIP + "session_expires = 100\nmin_se = 200\n", 5, "above session_expires"),
    ("negative time", SIP + "ring_timeout = -1\n", 4, "greater than 0"),
    ("text for a number", SIP + 'ring_timeout = "60"\n', 4, "number"),
    ("a table where a list of tables is", '[trunk]\nname = "a"\n', 1, r"write \[\[trunk\]\]"),
    ("a list where a table is", "[[sip]]\n", 1, r"write \[sip\]"),
    ("direct-routing without tls", TEAMS.replace(', "tls:127.0.0.1:5061"', ""), 5, "needs a tls listener"),
    ("direct-routing without tenants", TEAMS.replace('tenants = ["sbc.example.com"]', ""), 5, "needs a FQDN"),
    ("direct-routing by address", TEAMS.replace("sbc.example.com", "192.0.2.1"), 8, "full domain name"),
    ("onmicrosoft", TEAMS.replace("sbc.example.com", "sbc.x.onmicrosoft.com"), 8, "cannot be paired"),
    ("long name", TEAMS.replace("sbc.", "sbc." + "a" * 60 + "."), 8, "longer than 63"),
    ("not in the certificate", TEAMS.replace("sbc.example.com", "sbc.example.org"), 8, "does not name"),
    ("direct-routing over tcp", TEAMS + 'peers = ["tcp:sip.example.com:5061"]\n', 9, "TLS only"),
    ("direct-routing by SRV", TEAMS + 'peers = ["tls:sip.example.com"]\n', 9, "write port 5061"),
    ("direct-routing with plain RTP", TEAMS + "srtp = false\n", 9, "never carries plain RTP"),
    ("direct-routing as agent", TEAMS + 'party = "agent"\n', 9, "remove party"),
    ("direct-routing with national numbers", TEAMS + 'number_format = "national"\n', 9, "E.164"),
    ("direct-routing late offer", TEAMS + "late_offer = true\n", 9, "without SDP"),
    ("direct-routing advertising", TEAMS + 'advertise = "192.0.2.1"\n', 9, "T1"),
    ("caller of no tenant", TEAMS + "caller = { 'sbc.example.net' = '.*' }\n", 9, "no tenant here"),
    ("bad caller pattern", TEAMS + "caller = '('\n", 9, "at character 1"),
    (
        "one tenant, two trunks",
        TEAMS + '[[trunk]]\nname="t2"\nkind="direct-routing"\ntenants=["SBC.example.com"]\n',
        12,
        "belongs to trunk 'teams'",
    ),
    (
        "two agents, one number",
        '[[agent]]\nlogin="a"\nnumbers=["1","2"]\n[[agent]]\nlogin="b"\nnumbers=["2"]\n',
        6,
        "'a'",
    ),
    ("two agents, one login", '[[agent]]\nlogin="a"\n[[agent]]\nlogin="a"\n', 4, "second agent"),
    ("nameserver by name", '[resolver]\nnameservers = ["dns.example.com"]\n', 2, "name server's address"),
    ("host override to a name", '[resolver.hosts]\n"a.example" = "b.example"\n', 2, "not an IP address"),
    ("token in the file", '[http]\ntokens = [\n {name="a", secret="abc"}]\n', 3, "env:NAME"),
    ("graph incomplete", '[graph]\ntenant = "x"\nclient_id = "y"\n', 1, "client_secret"),
    (
        "webhook with a password",
        '[cdr.webhook]\nurl = "https://u:p@h/"\nsecret = "env:HOME"\n',
        2,
        "not allowed",
    ),
    (
        "route to no tenant",
        SIP + TEAMS + "[[route]]\nfrom='cc'\nto='teams'\ntenant='b.example.com'\n",
        15,
        "no tenant of",
    ),
]


@pytest.mark.parametrize(
    ("text", "line", "says"), [row[1:] for row in REFUSALS], ids=[row[0] for row in REFUSALS]
)
def test_a_mistake_names_its_line_and_cure(tmp_path: Path, text: str, line: int, says: str) -> None:
    certify(tmp_path, "sbc.example.com")
    other = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "other.pem").write_bytes(
        other.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    (tmp_path / "empty").touch()
    with pytest.raises(ConfigError, match=says) as caught:
        load(write(tmp_path, text))
    assert caught.value.line == line
    assert "hunter2" not in str(caught.value)


def test_every_mistake_is_shown_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = "[media]\nports = [30001, 30002]\n[sip]\nlisten = ['tls:127.0.0.1:5061']\n" + SIP + SIP
    found = examine(write(tmp_path, text))
    assert [error.line for error in found.errors] == [2, 2, 4, 7, 9, 10]
    assert found.config is None


@pytest.mark.parametrize(
    ("content", "says"), [(None, "cannot read"), (b"\xff\xfe", "UTF-8"), (b"#" * 5_000_000, "larger than")]
)
def test_a_file_that_cannot_be_one(tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "tandem.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=says):
        load(path)


@pytest.mark.parametrize(("days", "says"), [(-1, "ended on"), (5, "ends on"), (90, None)])
def test_a_certificate_about_to_end_is_a_warning(tmp_path: Path, days: int, says: str | None) -> None:
    certify(tmp_path, "sbc.example.com", days=days)
    config = load(write(tmp_path, TEAMS))
    texts = [problem.text for problem in file_warnings(config)]
    assert [text for text in texts if "RSA" in text], "an elliptic key has no cipher with Teams (T7)"
    assert [text for text in texts if "is not public" in text]
    assert bool([text for text in texts if says and says in text]) is (says is not None)


# ---------------------------------------------------------------------------------- the line finder

DOCUMENT = '''# comment with [brackets] = 1
top = 1
[a]
x = "text with # and ]"   # remark
"quoted key" = [1,
  2, # two
  { b = 3, c = [
    4 ] } ]
y.z = 1979-05-27T07:32:00Z

[[list]]
n = """
[not.a.table]
"""
[[list.inner]]
m = \'\'\'x\'\'\'
[list.sub]
k = -1e5
[[list]]
[[list.inner]]
[[list.inner]]
m = true
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("top",), 2),
        (("a",), 3),
        (("a", "x"), 4),
        (("a", "quoted key", 0), 5),
        (("a", "quoted key", 1), 6),
        (("a", "quoted key", 2, "b"), 7),
        (("a", "quoted key", 2, "c", 0), 8),
        (("a", "y", "z"), 9),
        (("list", 0, "n"), 12),
        (("list", 0, "inner", 0, "m"), 16),
        (("list", 0, "sub", "k"), 18),
        (("list", 1), 19),
        (("list", 1, "inner", 1, "m"), 22),
        (("list", 1, "absent", 3), 19),
        (("nowhere",), 0),
    ],
)
def test_the_line_of_a_key(path: tuple[str | int, ...], line: int) -> None:
    assert KeyLines(DOCUMENT).line(path) == line


_words = st.text("abc-_", min_size=1, max_size=3)
_values = st.sampled_from(
    ['"x]"', "'#'", "1", "true", '[1, "a,]", [2]]', '{k = "}"}', '"""\nq\n"""', "[\n1,\n]"]
)


@given(
    st.lists(
        st.tuples(_words, st.lists(st.tuples(_words, _values), unique_by=lambda pair: pair[0])), max_size=5
    )
)
def test_any_document_that_tomllib_reads_has_its_lines(
    tables: list[tuple[str, list[tuple[str, str]]]],
) -> None:
    text, expected = "", {}
    seen: dict[str, int] = {}
    for table, pairs in tables:
        index = seen[table] = seen.get(table, -1) + 1
        text += f"[[{table}]]\n"
        for key, value in pairs:
            expected[(table, index, key)] = text.count("\n") + 1
            text += f"{key} = {value} # remark\n"
    tomllib.loads(text)
    lines = KeyLines(text)
    assert {path: lines.line(path) for path in expected} == expected
