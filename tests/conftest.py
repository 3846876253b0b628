"""One thread for every test, and in CI the same random examples every time.

Results then do not depend on the machine's load, two workers do not fight over cores, and a red build is red again; a
developer's machine goes on looking for new examples.
"""

from __future__ import annotations

import os

from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

settings.register_profile("everywhere", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "everywhere")
