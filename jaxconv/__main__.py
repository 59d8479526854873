"""`python -m jaxconv` is the command `jaxconv`."""

import sys

from jaxconv.cli import main

sys.exit(main())
