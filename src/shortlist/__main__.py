"""`python -m shortlist` is the command line."""

import sys

from shortlist.cli import main

sys.exit(main())
