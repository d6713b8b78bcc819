"""`python -m app` is `ticket-activity`."""

import sys

from app.cli import main

sys.exit(main())
