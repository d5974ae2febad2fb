"""python -m example.demo: see cli.py. An interrupt during the imports ends quietly, too."""

import sys

try:
    from example.demo.cli import main

    sys.exit(main())
except KeyboardInterrupt:
    sys.exit(130)
