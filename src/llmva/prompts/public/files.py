"""Rows of a data file as they are, whatever its format: CSV, TSV, JSON, JSONL, Parquet, or one of these in a zip."""

import csv
import gzip
import io
import json
import zipfile
from pathlib import Path

import pandas

from llmva.core.errors import InputError

FORMATS = (".csv", ".tsv", ".json", ".jsonl", ".parquet")


def read_rows(path: Path, columns: tuple[str, ...] | None = None) -> list[dict]:
    """Return a file's rows, one dict each; nothing is turned into a number or a missing value.

    Parameters
    ----------
    path : Path
        A file in one of `FORMATS`, also zipped or gzipped; of a zip the one file that is no system file is read.
    columns : tuple of str, optional
        Names for a TSV table, which then has no header.

    Raises
    ------
    InputError
        When the file cannot be read; names it and the fix.
    """
    try:
        name, content = _unpacked(path)
        rows = _parse(name, content, columns)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start}; save it again as UTF-8") from None
    except (OSError, ValueError, csv.Error, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: cannot be read ({str(error).splitlines()[0]}); fetch the file again") from None
    if not rows:
        raise InputError(f"{path}: no rows in it; fetch the file again")
    return rows


def _unpacked(path: Path) -> tuple[str, bytes]:
    if path.suffix == ".gz":
        return path.stem, gzip.decompress(path.read_bytes())
    if path.suffix != ".zip":
        return path.name, path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        # Archives made on a Mac hold a twin of each file in a folder of its own.
        inside = [name for name in archive.namelist() if name.endswith(FORMATS) and not name.startswith("__MACOSX/")]
        if len(inside) != 1:
            raise ValueError(f"{len(inside)} data files in it, not one")
        return inside[0], archive.read(inside[0])


def _parse(name: str, content: bytes, columns: tuple[str, ...] | None) -> list[dict]:
    suffix = Path(name).suffix
    if suffix == ".parquet":
        return pandas.read_parquet(io.BytesIO(content)).to_dict("records")
    text = content.decode("utf-8-sig")
    if suffix == ".jsonl":
        # Not splitlines: a JSON string may hold other line separators of Unicode.
        return [json.loads(line) for line in text.split("\n") if line.strip()]
    if suffix == ".json":
        return json.loads(text)
    if suffix == ".tsv":
        # Sentences hold single quotation marks, which are no quoting.
        lines = csv.DictReader(text.split("\n"), columns, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [row for row in lines if any(row.values())]
    if suffix == ".csv":
        # Fields may hold line breaks, so lines are no rows.
        return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    raise ValueError(f"unknown format {suffix or 'without a suffix'}; known are {', '.join(FORMATS)}")
