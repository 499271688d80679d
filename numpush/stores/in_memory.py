"""An object of this process as if it were stored: for formats that are read only whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..blocks import place
from ..record import describe_object, read_record
from .fetching import Piece

if TYPE_CHECKING:
    from ..shm.segment import Segment

__all__ = ["InMemory"]


class InMemory:
    """A `Stored` over an object's own memory."""

    def __init__(self, obj: Any, what: str) -> None:
        fields, self._buffers = describe_object(obj, keep_blocks=False)
        self.record = read_record(fields, place(fields["buffers"])[1])
        self.what = what
        self._raw: dict[int, NDArray[np.uint8]] = {}

    def read(
        self, pieces: list[Piece], segment: Segment | None, progress: Callable[[int], None]
    ) -> None:
        for buffer, start, stop, target in pieces:
            if buffer not in self._raw:
                parts = list(self._buffers[buffer].parts(1 << 62))
                self._raw[buffer] = parts[0] if len(parts) == 1 else np.concatenate(parts)
            target[:] = self._raw[buffer][start:stop]
            progress(stop - start)
