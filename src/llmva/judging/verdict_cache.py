"""What judges said before, in SQLite: the same exchange is never judged twice by the same judge."""

import json
import sqlite3
from collections.abc import Callable, Sequence
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


class VerdictCache:
    """Raw judge outputs in SQLite, keyed by judge, prompt and response; in memory when no path is given."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        self._run(self._open)

    def get(self, keys: Sequence[str]) -> dict[str, str]:
        """Return what is known of some keys."""
        query = "SELECT key, raw FROM verdicts WHERE key IN (SELECT value FROM json_each(?))"
        return dict(self._run(lambda: self._database.execute(query, [json.dumps(keys)]).fetchall()))

    def put(self, outputs: dict[str, str]) -> None:
        """Remember raw outputs, all or none."""

        def write() -> None:
            with self._database:
                self._database.executemany("INSERT OR REPLACE INTO verdicts VALUES (?, ?)", outputs.items())

        self._run(write)

    def _open(self) -> None:
        # Several studies may judge at once: writers wait for each other.
        self._database = sqlite3.connect(self._path or ":memory:", timeout=CACHE_WAIT)
        self._database.execute("CREATE TABLE IF NOT EXISTS verdicts (key TEXT PRIMARY KEY, raw TEXT NOT NULL)")

    def _run(self, action: Callable[[], list | None]) -> list | None:
        try:
            return action()
        except sqlite3.DatabaseError as error:
            # The extended codes keep the kind of error in their lowest byte.
            fix = CACHE_FIXES.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, f"fix the disk, or {DELETE_CACHE}")
            raise InputError(f"{self._path}: the verdict cache cannot be used ({error}); {fix}") from None
