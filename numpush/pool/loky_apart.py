"""Importing loky beside the copy of it that joblib has. To be imported before loky is.

Each enters its context into multiprocessing's table, under the same name, and looks it up there to
start its workers. So whichever is imported last starts the other's too, with a resource tracker that
does not know the other's files: joblib's workers then leave theirs, with errors. An entry that is
there when we come stays; our own workers do not look (workers.py).
"""

from __future__ import annotations

from multiprocessing import context

_contexts = context._concrete_contexts  # type: ignore[attr-defined]  # private
_before = dict(_contexts)

import loky  # noqa: E402, F401  # which enters its own

_contexts.update(_before)
