"""The command ``python -m mae.data.check``."""

import sys

from mae.data.check.verify import main

sys.exit(main())
