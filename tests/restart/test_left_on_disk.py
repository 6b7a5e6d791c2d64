"""What an older gateway, a full disk or a crash may leave beside the journal: named, skipped, never fatal."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.calls.house import EXPERT
from tests.peers.certs import Pki
from tests.restart.plant import open_plant
from tests.restart.test_restart_in_place import both_hear, refreshed, talking


async def test_records_that_cannot_be_read_cost_their_own_calls_only(pki: Pki, tmp_path: Path) -> None:
    async with open_plant(pki, tmp_path) as plant:
        pairs, files = [], []
        known: set[Path] = set()
        for _ in range(4):
            pairs.append(await talking(plant))
            [new] = set((plant.state / "calls").glob("*.json")) - known
            known.add(new)
            files.append(new)
        await plant.kill()
        torn, older, odd, _ = files
        torn.write_bytes(torn.read_bytes()[:-40])
        older.write_text(json.dumps({**json.loads(older.read_text()), "version": 0}))
        odd.write_text(json.dumps({**json.loads(odd.read_text()), "holds": [7]}))
        (plant.state / "calls" / "gone.json").write_text('{"version": 1, "legs": []}')
        (plant.state / "calls" / "half.new").write_text("{")
        (plant.state / "calls" / "list.json").write_text("[]")
        await plant.start()
        agent, expert = pairs[3]
        await refreshed(agent, expert)
        await both_hear(agent, expert)
        log = plant.log
        for name in (torn.name, "half.new", "list.json"):
            assert f"snapshot_unreadable file={name}" in log
        for file in (older, odd):
            assert f"snapshot_unusable call={file.stem}" in log
        await agent.bye()
        await expert.expect_end()
        rows = await plant.all_rows(4)
        reasons = {row["id"]: row["reason"] for row in rows}
        assert sorted(reasons.values()) == ["gateway_restart"] * 3 + ["hangup"]
        # nobody can speak for these dialogs any more: the next request of theirs says so
        for agent, expert in pairs[:3]:
            for party in (agent, expert):
                assert (await party.bye()).code == 481


async def test_those_who_wait_in_a_call_that_the_journal_does_not_know_are_told(
    pki: Pki, tmp_path: Path
) -> None:
    """A record is written before the journal, and a kill may come between the two."""
    async with open_plant(pki, tmp_path) as plant:
        agent = await plant.center.call(EXPERT)
        expert = await plant.teams.expect_invite()
        expert.ring()
        await agent.ringing()
        await plant.kill()
        shutil.rmtree(plant.state / "journal")
        await plant.start()
        assert (await agent.outcome()).code == 503
        await expert.expect_end()
        assert not plant.rows()
