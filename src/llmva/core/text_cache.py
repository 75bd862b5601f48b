"""Texts that were dear to make, in SQLite by a digest of what they came from: what judges said, what models replied."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from llmva.core.errors import InputError

# Seconds for which a writer waits for another one.
CACHE_WAIT = 120
DELETE_CACHE = "delete it, it is made again"
CACHE_FIXES = {
    sqlite3.SQLITE_BUSY: "wait for the other runs that use it",
    sqlite3.SQLITE_LOCKED: "wait for the other runs that use it",
    sqlite3.SQLITE_READONLY: "it is not writable: change its permissions",
    sqlite3.SQLITE_CANTOPEN: "it is not writable: change its folder's permissions",
    sqlite3.SQLITE_FULL: "make room on the disk",
    sqlite3.SQLITE_NOTADB: DELETE_CACHE,
    sqlite3.SQLITE_CORRUPT: DELETE_CACHE,
}


class TextCache:
    """Texts by key in a SQLite file; in memory when no path is given."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        with self._errors_in_a_line():
            # Several studies may judge at once: writers wait for each other.
            self._database = sqlite3.connect(path or ":memory:", timeout=CACHE_WAIT)
            self._database.execute("CREATE TABLE IF NOT EXISTS texts (key TEXT PRIMARY KEY, value TEXT NOT NULL)")

    def get(self, keys: Sequence[str]) -> dict[str, str]:
        """Return what is known of some keys."""
        query = "SELECT key, value FROM texts WHERE key IN (SELECT json_each.value FROM json_each(?))"
        with self._errors_in_a_line():
            return dict(self._database.execute(query, [json.dumps(keys)]).fetchall())

    def put(self, texts: dict[str, str]) -> None:
        """Remember texts, all or none."""
        with self._errors_in_a_line(), self._database:
            self._database.executemany("INSERT OR REPLACE INTO texts VALUES (?, ?)", texts.items())

    @contextmanager
    def _errors_in_a_line(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            # The extended codes keep the kind of error in their lowest byte.
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            fix = CACHE_FIXES.get(code, f"fix the disk, or {DELETE_CACHE}")
            raise InputError(f"{self._path}: the cache cannot be used ({error}); {fix}") from None
