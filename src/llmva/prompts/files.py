"""Data files as they are: CSV, TSV, JSON, JSONL or Parquet, also in a zip; no text becomes a number or missing."""

import contextlib
import csv
import gzip
import io
import json
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas

from llmva.core.errors import DISK_ERRORS, InputError, first_line

FILE_FORMATS = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet")
# What spreadsheets write in place of commas.
OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}
# The csv module reads fields of 131,072 characters at most, and pandas any.
MAX_FIELD = 2**31 - 1
# Of what a file holds, so much is shown in a line that tells what is wrong with it.
MAX_SHOWN, MAX_LETTERS = 12, 40


def read_rows(
    path: Path,
    columns: Sequence[str] | None = None,
    *,
    fix: str = "correct that line, or fetch the file again",
    spreadsheet: bool = False,
) -> list[dict]:
    """Return a file's rows, one dict each.

    Parameters
    ----------
    path : Path
        A file in one of `FILE_FORMATS`, also zipped or gzipped; of a zip the one file that is no system file is read.
    columns : sequence of str, optional
        Names for a TSV table, which then has no header.
    fix : str
        What to do about a file that cannot be read.
    spreadsheet : bool
        Whether a TSV table may be a spreadsheet's, which quotes some fields; those of published tasks quote none.

    Raises
    ------
    InputError
        When the file cannot be read; names it and the fix.
    """
    with reading(path, "cannot be read", fix):
        rows = _parse(*_unpack(path), columns, spreadsheet)
    if not rows:
        raise InputError(f"{path}: no rows in it; {fix}")
    return rows


@contextlib.contextmanager
def reading(path: Path, problem: str, fix: str) -> Iterator[None]:
    """Turn whatever goes wrong in reading a file into an `InputError`: the file, the problem, the fix."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start}; save it again as UTF-8") from None
    except PermissionError:
        raise InputError(f"{path}: not readable; change its permissions") from None
    except OSError as error:
        if error.errno in DISK_ERRORS:
            raise
        raise InputError(f"{path}: {problem} ({first_line(error)}); {fix}") from None
    # An encrypted archive, and JSON that is nested too deeply, are runtime errors.
    except (
        ValueError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, csv.Error, pandas.errors.ParserWarning,
    ) as error:  # fmt: skip
        raise InputError(f"{path}: {problem} ({first_line(error)}); {fix}") from None


def decode(content: bytes) -> str:
    """Return UTF-8 as text, without the byte-order mark that spreadsheets begin it with."""
    return content.decode("utf-8-sig")


def parse_csv(text: str, **options) -> pandas.DataFrame:
    """Return a table of texts: "None" or "NA" can be a prompt. The options are those of `pandas.read_csv`."""
    separator = options.get("sep", ",")
    if not {"sep", "names"} & set(options):
        _require_commas(text)
    if options.get("quoting") != csv.QUOTE_NONE:
        _require_quoting(text, separator)
    with warnings.catch_warnings():
        # An unquoted comma would otherwise cut a prompt in two without a word.
        warnings.simplefilter("error", pandas.errors.ParserWarning)
        table = pandas.read_csv(io.StringIO(text), dtype=str, keep_default_na=False, index_col=False, **options)
    if "names" not in options:
        rows = csv.reader(io.StringIO(text), delimiter=separator)
        _require_distinct(next((row for row in rows if row), []))
    return table


def _require_quoting(text: str, separator: str) -> None:
    """Raise a `ValueError` with the line where a quotation mark ends a field too early, or never."""
    csv.field_size_limit(MAX_FIELD)
    rows = csv.reader(io.StringIO(text), delimiter=separator, strict=True)
    try:
        for _ in rows:
            pass
    except csv.Error as error:
        # pandas would go on inside the next field, and mangle the prompt or swallow rows.
        fix = 'in a quoted field write each quotation mark twice ("")'
        raise ValueError(f"line {rows.line_num}: {error}: {fix}") from None


def _require_commas(text: str) -> None:
    """Raise a `ValueError` where a table's header has other signs between its columns."""
    header = next((line for line in io.StringIO(text, newline=None) if line.strip()), "")
    for sign, name in OTHER_SEPARATORS.items():
        if sign in header and "," not in header:
            raise ValueError(f"its columns stand apart by {name}, where commas are needed")


def _require_distinct(header: list[str]) -> None:
    # pandas would give the second one another name, and read the first.
    if twice := [name for name in header if name and header.count(name) > 1]:
        raise ValueError(f"two columns are named {twice[0]!r}")


def parse_json_lines(text: str) -> list[dict]:
    """Return one object a line. pandas' reader would make missing values of absent keys, and numbers of labels."""
    # Not splitlines: a JSON string may hold other line separators of Unicode.
    lines = enumerate(io.StringIO(text, newline=None), start=1)
    return [_parse_object(line, number) for number, line in lines if line.strip()]


def require_columns(table: pandas.DataFrame, columns: Sequence[str], path: Path) -> None:
    """Raise an `InputError` unless a table has all of these columns."""
    # Without a header these are the first row's own words.
    named = [shortened(str(name)) for name in list(table)[:MAX_SHOWN]]
    shown = ", ".join(named + ["..."] * (len(table.columns) > MAX_SHOWN))
    for column in columns:
        if column not in table:
            if alike := [str(name) for name in table if str(name).strip().lower() == column.lower()]:
                fix = "write it in small letters, with no blank around it"
                raise InputError(f"{path}: no column {column!r}, but {alike[0]!r}; {fix}")
            raise InputError(f"{path}: no column {column!r}; add it (columns found: {shown})")


def require_texts(table: pandas.DataFrame, columns: Sequence[str], source: str | Path) -> None:
    """Raise an `InputError` unless these columns of a table hold whole texts and nothing else."""
    for column in columns:
        for number, text in enumerate(table[column], start=1):
            place = f"{source}: {column}"
            if not isinstance(text, str):
                if pandas.api.types.is_scalar(text) and pandas.isna(text):
                    raise InputError(f"{place}: empty in data row {number}; fill or remove that row")
                raise InputError(f"{place}: of type {type(text).__name__} in data row {number}; write a text")
            try:
                text.encode()
            except UnicodeEncodeError:
                raise InputError(f"{place}: half a character in data row {number}; write it whole") from None


def shortened(text: str) -> str:
    """Return a text cut to what a line has room for."""
    return text if len(text) <= MAX_LETTERS else f"{text[:MAX_LETTERS]}..."


def _unpack(path: Path) -> tuple[str, bytes]:
    if path.suffix.lower() == ".gz":
        return path.stem, gzip.decompress(path.read_bytes())
    if path.suffix.lower() != ".zip":
        return path.name, path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        # Archives made on a Mac hold a twin of each file in a folder of its own, at which pandas gives up.
        names = [name for name in archive.namelist() if not name.startswith("__MACOSX/")]
        names = [name for name in names if name.lower().endswith(FILE_FORMATS)]
        if len(names) != 1:
            raise ValueError(f"{len(names)} data files in it, not one")
        return names[0], archive.read(names[0])


def _parse(name: str, content: bytes, columns: Sequence[str] | None, spreadsheet: bool) -> list[dict]:
    match Path(name).suffix.lower():
        case ".parquet":
            table = pandas.read_parquet(io.BytesIO(content))
            return table.astype(object).where(table.notna(), None).to_dict("records")
        case ".json":
            return _parse_json(decode(content))
        case ".jsonl" | ".ndjson":
            return parse_json_lines(decode(content))
        case ".csv" | ".tsv" as suffix:
            text = decode(content)
            # A table's sentences hold single quotation marks, which are no quoting.
            quoting = csv.QUOTE_MINIMAL if spreadsheet and _is_quoted(text) else csv.QUOTE_NONE
            options = {"sep": "\t", "names": columns, "quoting": quoting} if suffix == ".tsv" else {}
            return parse_csv(text, **options).to_dict("records") if text.strip() else []
        case suffix:
            known = ", ".join(FILE_FORMATS)
            raise ValueError(f"unknown format {suffix or 'without a suffix'}; known are {known}")


def _is_quoted(text: str) -> bool:
    """Tell whether every quotation mark that begins a field of a TSV table quotes it to its end."""
    try:
        _require_quoting(text, "\t")
    except ValueError:
        return False
    return True


def _parse_json(text: str) -> list[dict]:
    """Return the objects of an array, or, as many write such files, one a line."""
    if not text.lstrip().startswith("["):
        return parse_json_lines(text)
    rows = json.loads(text, object_pairs_hook=_distinct)
    if strangers := [number for number, row in enumerate(rows, start=1) if not isinstance(row, dict)]:
        raise ValueError(f"item {strangers[0]}: not a JSON object")
    return rows


def _parse_object(line: str, number: int) -> dict:
    try:
        row = json.loads(line.rstrip("\n"), object_pairs_hook=_distinct)
    except ValueError as error:
        raise ValueError(f"line {number}: {error}") from None
    if not isinstance(row, dict):
        raise ValueError(f"line {number}: not a JSON object")
    return row


def _distinct(pairs: list[tuple[str, object]]) -> dict:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"two keys are named {next(name for name in names if names.count(name) > 1)!r}")
    return row
