"""A reward that fails in the middle, for tests: at its call number FAIL_AT it raises, or hangs once it has written the file HANGING.

Of several processes it does so in the last one alone.
"""

import os
import time
from pathlib import Path

calls = 0


def reward(samples):
    """How often "the" occurs."""
    global calls
    calls += 1
    last = int(os.environ.get("RANK", 0)) == int(os.environ.get("WORLD_SIZE", 1)) - 1
    if last and calls == int(os.environ.get("FAIL_AT", 0)):
        if "HANGING" not in os.environ:
            raise KeyError("lost")
        Path(os.environ["HANGING"]).touch()
        time.sleep(3600)
    return [float(sample.lower().count("the")) for sample in samples]
