"""The embedded world: film reviews from a grammar, and small models trained on them. See README.md."""

from pathlib import Path

TINY = Path(__file__).parent
