"""Digest authentication as client, against the examples of RFC 7616 and RFC 2617."""

from __future__ import annotations

from gateway.sip.auth import Authenticator, Challenge, digest_response, parse_challenges
from gateway.sip.message import Response
from gateway.sip.profile import Credentials

MUFASA = Credentials("Mufasa", "Circle of Life")
NONCE = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v"
CNONCE = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"


def challenge(algorithm: str, qop: str = "auth") -> Challenge:
    return Challenge(
        "Authorization", "http-auth@example.org", NONCE, "FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS",
        algorithm, qop, False, True,
    )  # fmt: skip


def refused(*values: str, name: str = "WWW-Authenticate", code: int = 401) -> Response:
    response = Response(code, "Unauthorized")
    for value in values:
        response.headers.add(name, value)
    return response


def test_rfc_7616_3_9_1_md5_and_sha_256() -> None:
    md5 = digest_response(challenge("MD5"), MUFASA, "GET", "/dir/index.html", b"", cnonce=CNONCE, count=1)
    sha = digest_response(challenge("SHA-256"), MUFASA, "GET", "/dir/index.html", b"", cnonce=CNONCE, count=1)
    assert 'response="8ca523f5e9506fed4657c9700eebdbec"' in md5
    assert 'response="753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"' in sha
    assert "algorithm=SHA-256" in sha
    assert "nc=00000001" in sha
    assert "qop=auth" in sha


def test_rfc_2069_style_without_qop() -> None:
    old = Challenge("Authorization", "testrealm@host.com", "dcd98b", None, "MD5", "", False, False)
    value = digest_response(old, MUFASA, "GET", "/", b"", cnonce="x", count=1)
    assert "qop" not in value
    assert "cnonce" not in value
    assert "algorithm" not in value


def test_auth_int_covers_the_body() -> None:
    def value(body: bytes) -> str:
        return digest_response(
            challenge("MD5", "auth-int"), MUFASA, "INVITE", "sip:a@b", body, cnonce="x", count=1
        )

    assert value(b"one") != value(b"two")
    assert "qop=auth-int" in value(b"one")


def test_the_best_algorithm_wins_and_others_are_left_out() -> None:
    response = refused(
        'Digest realm="r", nonce="m", algorithm=MD5, qop="auth,auth-int"',
        'Digest realm="r", nonce="s", algorithm=SHA-256, qop="auth"',
        'Digest realm="r", nonce="x", algorithm=TTH, qop="auth"',
        'Basic realm="r"',
        'Digest realm="r", nonce="q", qop="other"',
        'Digest realm="no nonce"',
    )
    found = parse_challenges(response.headers)
    assert [(one.algorithm, one.qop) for one in found] == [("SHA-256", "auth"), ("MD5", "auth")]


def test_quoted_commas_and_escapes_in_a_challenge() -> None:
    found = parse_challenges(
        refused('Digest realm="a, \\"b\\"", nonce="n=,", opaque="o", qop="auth"').headers
    )
    assert (found[0].realm, found[0].nonce, found[0].opaque) == ('a, "b"', "n=,", "o")
    answer = digest_response(found[0], MUFASA, "INVITE", "sip:a@b", b"", cnonce="c", count=1)
    assert 'realm="a, \\"b\\""' in answer


def test_nonce_count_goes_up_and_a_stale_nonce_is_replaced() -> None:
    client = Authenticator(MUFASA, lambda: "c")
    assert client.learn(refused('Digest realm="r", nonce="one", qop="auth"'), frozenset())
    first = client.answers("INVITE", "sip:a@b", b"")[0][1]
    second = client.answers("BYE", "sip:a@b", b"")[0][1]
    assert "nc=00000001" in first
    assert "nc=00000002" in second
    stale = refused('Digest realm="r", nonce="two", qop="auth", stale=TRUE')
    assert client.learn(stale, client.realms)
    assert 'nonce="two"' in client.answers("BYE", "sip:a@b", b"")[0][1]


def test_a_second_refusal_of_the_same_realm_is_final() -> None:
    client = Authenticator(MUFASA)
    assert client.learn(refused('Digest realm="r", nonce="one"'), frozenset())
    answered = client.realms
    assert not client.learn(refused('Digest realm="r", nonce="two"'), answered)
    assert client.answers("INVITE", "sip:a@b", b"") == []


def test_proxy_and_server_are_answered_side_by_side() -> None:
    client = Authenticator(MUFASA)
    assert client.learn(
        refused('Digest realm="p", nonce="1"', name="Proxy-Authenticate", code=407), frozenset()
    )
    assert client.learn(refused('Digest realm="s", nonce="2"'), client.realms)
    names = {name for name, _ in client.answers("INVITE", "sip:a@b", b"")}
    assert names == {"Authorization", "Proxy-Authorization"}


def test_foreign_realm_is_not_answered() -> None:
    client = Authenticator(Credentials("u", "p", realm="mine"))
    assert not client.learn(refused('Digest realm="yours", nonce="1"'), frozenset())


def test_no_credentials_no_answer_and_no_password_in_a_repr() -> None:
    assert not Authenticator(None).learn(refused('Digest realm="r", nonce="1"'), frozenset())
    assert "Circle" not in repr(MUFASA)
