"""What `scripts/demo` runs: a gateway between two stand-ins, each a process of its own, for people."""
