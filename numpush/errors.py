"""Every error that numpush raises on purpose, each also the builtin that a caller would catch."""

from .shm.errors import *  # noqa: F403
from .shm.errors import __all__ as __all__
