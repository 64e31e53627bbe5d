"""A cache that fills up to a budget of bytes and then stays as it is.

Epochs read everything once in random order, for which evicting the least recently used entry
is the worst rule there is: what is dropped is what comes next. A fixed part kept for good hits
at the rate of its share of the data.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable
from typing import Any


class ByteBudgetCache:
    """Entries of stated size, until `budget` bytes are used; safe to share among threads."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.used = 0
        self._entries: dict[Hashable, Any] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Any | None:
        """What was put under `key`, or None."""
        return self._entries.get(key)

    def put(self, key: Hashable, value: Any, nbytes: int) -> None:
        """Keep `value`, of `nbytes` bytes, unless that would exceed the budget."""
        with self._lock:
            if key not in self._entries and self.used + nbytes <= self.budget:
                self._entries[key] = value
                self.used += nbytes
