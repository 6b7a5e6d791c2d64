"""[agent_states], [sign_in] and agent_header: what contradicts itself is refused at its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config import examine, load

GRAPH = '[graph]\ntenant = "t"\nclient_id = "c"\nclient_secret = "file:secret"\n'
TEAMS = """[[trunk]]
name = "teams"
kind = "direct-routing"
tenants = ["sbc.example.com"]
agent_header = "X-Agent"
"""


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ('[sign_in]\nentra = true\npublic_url = "https://d.example"\n', 2, "needs [graph]"),
        (f"[sign_in]\nentra = true\n{GRAPH}", 2, "needs public_url"),
        (f'[sign_in]\nentra = true\npublic_url = "http://d.example"\n{GRAPH}', 3, "https addresses only"),
        ("[sign_in]\nidle_timeout = 100\nlongest = 50\n", 2, "above longest"),
        ('[sign_in]\nentra_roles = { x = "king" }\n', 2, "one of"),
        ('[agent_states]\nnot_ready_reasons = [""]\n', 2, "at least 1 character"),
        ("[agent_states]\nteam_after_call_work = { Sales = -1 }\n", 2, "greater than or equal to 0"),
        (TEAMS, 5, "no agent calls from direct-routing"),
        (TEAMS.replace("agent_header", "queue_time_header"), 5, "no contact center's menus"),
        (TEAMS.replace("agent_header", "ivr_time_header"), 5, "no contact center's menus"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, text: str, line: int, words: str) -> None:
    (tmp_path / "secret").write_text("s")
    path = tmp_path / "tandem.toml"
    path.write_text(text)
    assert any(words in str(e) and e.line == line for e in examine(path).errors), examine(path).errors


def test_localhost_may_do_without_tls(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    path = tmp_path / "tandem.toml"
    path.write_text(f'[sign_in]\nentra = true\npublic_url = "http://localhost:8080"\n{GRAPH}')
    assert load(path).sign_in.entra
