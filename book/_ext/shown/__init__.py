"""What pages show of the study: plans, findings and what they say in words, tables, cards and charts. No extensions."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))  # for ``workflow``: only ``ddlib`` is installed
