"""Peers that share no code with the gateway: what tests, demo and bench call it from.

- `teams`, `contact_center`: scripted stand-ins on `sipwire*` (own SIP text, sockets, transactions); each also
  a process: `python -m tests.peers.teams --help`. `teams_rules` is the strict eye on what the gateway sends.
- `sipp`, `baresip`, `pjsua`: other people's SIP, each as an async context manager.
- `rtp`, `tone`, `voice`: media. `certs`: a PKI. `dns`: a name server. `mini_sbc`: proves the Teams stand-in.
"""
