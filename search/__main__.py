"""``python -m search`` is the console command ``search``."""

import sys

from search.cli import main

if __name__ == "__main__":
    sys.exit(main())
