"""All errors of numpush; see `numpush.shm.errors`."""

from .shm.errors import *  # noqa: F403
from .shm.errors import __all__ as __all__
