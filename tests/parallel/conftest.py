"""Ranks: as threads of one process (local_ranks), where it is about what they compute, and by MPI, where it is about processes."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1])]  # local_ranks
