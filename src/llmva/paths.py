"""Paths anchored at the repository's root, and writes that are all or nothing.

`LLMVA_OUT` moves `results/`, `tables/` and `figures/` elsewhere: the tests use it, so that a
check never rewrites what is committed.
"""

import os
import uuid
from pathlib import Path

ROOT = Path(os.environ.get("LLMVA_ROOT", Path(__file__).resolve().parents[2]))
OUT = Path(os.environ.get("LLMVA_OUT", ROOT)).absolute()

NOTEBOOKS = ROOT / "notebooks"
PARAMS = ROOT / "papermill_params"
RUNS = ROOT / "runs"
RESULTS = OUT / "results"
TABLES = OUT / "tables"
FIGURES = OUT / "figures"


def anchored(path: str | Path) -> Path:
    """Return `path` as it is when absolute, else below the repository's root."""
    return ROOT / path


def write_atomically(path: str | Path, content: str | bytes) -> bool:
    """Write a file by renaming a finished one; do nothing when the bytes are already there.

    Returns
    -------
    bool
        True when the file changed. An unchanged file keeps its time, so Make sees no staleness.
    """
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    if path.is_file() and path.read_bytes() == data:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    temporary.write_bytes(data)
    os.replace(temporary, path)
    return True
