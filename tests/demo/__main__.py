"""`python -m tests.demo`; see `show`."""

from __future__ import annotations

import sys

from tests.demo.show import main

sys.exit(main())
