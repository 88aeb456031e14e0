"""``python -m bitfront.search`` is the console command ``search``."""

import sys

from bitfront.search.cli import main

if __name__ == "__main__":
    sys.exit(main())
