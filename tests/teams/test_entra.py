"""Tokens: unmodified msal against the stand-in over TLS."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.teams.account_model import Account
from gateway.teams.client import GraphClient
from gateway.teams.clouds import ADDRESSES, Cloud
from gateway.teams.entra import SIGN_IN_LIFE, Entra, Identity, asks_for_sign_in
from gateway.teams.errors import EntraRefused, GraphUnavailable, SignInNeeded, WrongIdentity
from gateway.teams.store import Shelf, Store
from tests.peers.graph import CLIENT, SECRET, TENANT, GraphSim
from tests.support.clock import FakeClock
from tests.teams.acting import browse, sign_in
from tests.teams.conftest import ANN, ERIKA, REDIRECT


def accept(_login: str, _identity: Identity) -> None:
    """Whoever it is."""


async def test_the_applications_token_is_asked_for_once(sim: GraphSim, entra: Entra) -> None:
    first = await entra.app_token()
    assert await entra.app_token() == first
    assert sim.entra.requests.count("token client_credentials") == 1
    assert await entra.app_token(renew=True) != first


@pytest.mark.parametrize(
    ("secret", "client_id", "tenant", "cause"),
    [
        ("wrong", CLIENT, TENANT, "secret is wrong"),
        ("old", CLIENT, TENANT, "secret has expired"),
        (SECRET, "00000000-0000-0000-0000-000000000000", TENANT, "client id is not known"),
    ],
)
async def test_a_refusal_names_its_cause_and_no_secret(
    sim: GraphSim,
    cloud: Cloud,
    store: Store,
    clock: FakeClock,
    secret: str,
    client_id: str,
    tenant: str,
    cause: str,
) -> None:
    sim.registration.expired_secrets.add("old")
    entra = Entra(cloud, Account(tenant, client_id, secret), store, clock)
    with pytest.raises(EntraRefused, match=cause) as caught:
        await entra.app_token()
    entra.close()
    if secret != "wrong":
        assert secret not in str(caught.value)


async def test_no_entra_at_all_is_unavailable(
    store: Store, clock: FakeClock, account: Account, sim: GraphSim
) -> None:
    entra = Entra(Cloud("https://localhost:1", sim.root, sim.roots), account, store, clock)
    with pytest.raises(GraphUnavailable):
        await entra.app_token()
    entra.close()


async def test_a_user_signs_in_and_stays(sim: GraphSim, entra: Entra, client: GraphClient) -> None:
    answer = await browse(sim, await entra.begin_sign_in("ann", REDIRECT, ANN))
    login, identity = await entra.finish_sign_in(answer, accept, login="ann")
    assert (login, identity.oid, identity.tid) == ("ann", ANN, TENANT)
    assert (await client.get("/me", who="ann"))["id"] == ANN
    assert sim.entra.requests.count("token refresh_token") == 0


async def test_tokens_outlive_a_restart_and_are_sealed(
    sim: GraphSim,
    entra: Entra,
    cloud: Cloud,
    account: Account,
    store: Store,
    clock: FakeClock,
    tmp_path: Path,
) -> None:
    await sign_in(sim, entra, "ann", REDIRECT, ANN)
    again = Entra(cloud, account, store, clock)
    token = await again.user_token("ann")
    again.close()
    assert sim.entra.requests.count("token refresh_token") == 0
    kept = b"".join(file.read_bytes() for file in tmp_path.glob("teams.db*"))  # noqa: ASYNC240  small
    assert kept
    assert token.encode() not in kept
    assert b"RefreshToken" not in kept
    assert (tmp_path / "teams.key").stat().st_mode & 0o777 == 0o600


async def test_a_refresh_token_is_used_and_replaced(sim: GraphSim, entra: Entra, client: GraphClient) -> None:
    await sign_in(sim, entra, "ann", REDIRECT, ANN)
    for _ in range(2):
        sim.entra.expire_access_tokens()
        assert (await client.get("/me", who="ann"))["id"] == ANN
    assert sim.entra.requests.count("token refresh_token") == 2


async def test_a_revoked_user_has_to_sign_in_again(sim: GraphSim, entra: Entra, client: GraphClient) -> None:
    await sign_in(sim, entra, "ann", REDIRECT, ANN)
    sim.entra.revoked.add(ANN)
    sim.entra.expire_access_tokens()
    with pytest.raises(SignInNeeded):
        await client.get("/me", who="ann")
    with pytest.raises(SignInNeeded):
        await entra.user_token("nobody")


@pytest.mark.parametrize(
    ("found", "who"),
    [
        (None, "the user"),
        ({"error": "invalid_grant", "error_codes": [50173]}, "the user"),
        ({"error": "interaction_required", "error_codes": [50076]}, "the user"),
        ({"error": "consent_required"}, "the user"),
        ({"error": "invalid_client", "error_codes": [7000222]}, "somebody else"),
        ({"error": "unauthorized_client", "error_codes": [700016]}, "somebody else"),
        ({"error": "temporarily_unavailable", "error_codes": [90033]}, "nobody"),
        ({"error": "too_many_requests"}, "nobody"),
    ],
)
def test_only_what_the_user_can_mend_asks_him_to_sign_in(found: dict[str, object] | None, who: str) -> None:
    """Every refusal did, an expired client secret and throttling among them."""
    assert asks_for_sign_in(found) == (who == "the user")


async def test_an_expired_secret_does_not_send_the_users_to_sign_in(
    sim: GraphSim, entra: Entra, client: GraphClient
) -> None:
    await sign_in(sim, entra, "ann", REDIRECT, ANN)
    sim.registration.expired_secrets.add(SECRET)
    sim.entra.expire_access_tokens()
    with pytest.raises(EntraRefused, match="client secret has expired"):
        await client.get("/me", who="ann")
    assert entra.refused == set()


@pytest.mark.parametrize("claims", [{"aud": "other"}, {"tid": "other"}, {"iss": "https://evil"}, {"exp": 1}])
async def test_msal_checks_no_claims_so_we_do(sim: GraphSim, entra: Entra, claims: dict[str, object]) -> None:
    sim.entra.claims = claims
    answer = await browse(sim, await entra.begin_sign_in("ann", REDIRECT, ANN))
    with pytest.raises(WrongIdentity):
        await entra.finish_sign_in(answer, accept)


async def test_somebody_elses_sign_in_leaves_no_tokens(sim: GraphSim, entra: Entra, store: Store) -> None:
    def only_ann(_login: str, identity: Identity) -> None:
        if identity.oid != ANN:
            raise WrongIdentity("not Ann")

    sim.entra.impostor = ERIKA
    answer = await browse(sim, await entra.begin_sign_in("ann", REDIRECT, ANN))
    with pytest.raises(WrongIdentity):
        await entra.finish_sign_in(answer, only_ann)
    assert await store.all(Shelf.TOKENS) == {}


async def test_a_sign_in_is_good_once_and_for_ten_minutes(
    sim: GraphSim, entra: Entra, clock: FakeClock
) -> None:
    answer = await browse(sim, await entra.begin_sign_in("ann", REDIRECT, ANN))
    with pytest.raises(WrongIdentity):
        await entra.finish_sign_in(answer, accept, login="bob")
    with pytest.raises(SignInNeeded):
        await entra.finish_sign_in(answer, accept)
    late = await browse(sim, await entra.begin_sign_in("ann", REDIRECT, ANN))
    clock.advance(SIGN_IN_LIFE + 1)
    with pytest.raises(SignInNeeded):
        await entra.finish_sign_in(late, accept)
    with pytest.raises(SignInNeeded):
        await entra.finish_sign_in({"state": "invented", "code": "x"}, accept)


async def test_declined_consent_is_told(sim: GraphSim, entra: Entra) -> None:
    sim.registration.scopes.discard("ChannelMessage.Read.All")
    answer = await browse(sim, await entra.begin_sign_in("ann", REDIRECT, ANN))
    with pytest.raises(EntraRefused, match="access_denied"):
        await entra.finish_sign_in(answer, accept)


@pytest.mark.parametrize("name", ADDRESSES)
def test_each_national_cloud_has_scopes_of_its_own(
    name: str, account: Account, store: Store, clock: FakeClock
) -> None:
    entra = Entra(Cloud.named(name), account, store, clock)
    entra.close()
    prefix = "" if name == "global" else f"{Cloud.named(name).origin}/"
    assert f"{prefix}User.Read" in entra.scopes
    assert Cloud.named(name).may_set_presence == (name == "global")
