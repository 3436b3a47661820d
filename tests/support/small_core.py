"""`python -m core` in a process of its own whose CNN is a network that trains in a moment."""

import sys

from core.__main__ import main
from core.models.architectures import BUILDERS
from tests.support.models import build_small

if __name__ == "__main__":
    BUILDERS["cnn"] = build_small
    sys.exit(main())
