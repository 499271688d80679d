"""The C border. C values (cdata) are made, used and freed inside this package;
the packages above see ints, buffers, opaque references and OSError.

A reference (`Ref`) is an address in a mapping: whoever holds it keeps the mapping alive.
"""

from __future__ import annotations

import os
from typing import Any

__all__ = ["Ref", "check"]

Ref = Any  #: opaque; pass it back to this package and to nothing else


def check(rc: int) -> int:
    """Return *rc* when it is not negative, else raise the OSError it stands for."""
    if rc < 0:
        raise OSError(-rc, os.strerror(-rc))
    return rc
