"""`python -m cliptex` is `cliptex`."""

import sys

from cliptex.cli import main

sys.exit(main())
