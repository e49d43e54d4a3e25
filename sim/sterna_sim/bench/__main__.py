"""``python -m sterna_sim.bench``."""

import sys

from sterna_sim.bench.command import main

if __name__ == "__main__":
    sys.exit(main())
