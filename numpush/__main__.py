"""`python -m numpush` is the command `numpush`."""

import sys

from .cli import main

sys.exit(main())
