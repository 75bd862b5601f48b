"""Paths and writes: all or nothing, and nothing at all when nothing changed."""

import os
from pathlib import Path

import pandas
import pytest
from conftest import Killed

from llmva.core import paths
from llmva.core.errors import InputError
from llmva.core.paths import write_atomically, write_texts


def test_an_unchanged_file_keeps_its_time_and_its_place_on_disk(tmp_path):
    path = tmp_path / "table.csv"
    assert write_atomically(path, "a,b\n")
    os.utime(path, ns=(10**18, 10**18))
    before = path.stat()
    assert not write_atomically(path, "a,b\n")
    assert not write_atomically(path, b"a,b\n")
    after = path.stat()
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)


def test_a_changed_file_is_replaced(tmp_path):
    path = tmp_path / "table.csv"
    write_atomically(path, "old\n")
    os.utime(path, ns=(10**18, 10**18))
    assert write_atomically(path, "new: café\n")
    assert path.read_bytes() == "new: café\n".encode()
    assert path.stat().st_mtime_ns != 10**18
    assert os.listdir(tmp_path) == ["table.csv"]


def test_folders_on_the_way_are_made(tmp_path):
    write_atomically(tmp_path / "a" / "b" / "file.txt", "x")
    assert (tmp_path / "a" / "b" / "file.txt").read_text() == "x"


def test_a_kill_before_the_rename_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "table.csv"
    write_atomically(path, "old\n")

    def killed(*_):
        raise Killed

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(Killed):
        write_atomically(path, "new\n")
    monkeypatch.undo()
    assert path.read_text() == "old\n"
    write_atomically(path, "new\n")
    assert path.read_text() == "new\n"


def test_relative_paths_are_anchored_at_the_root_and_absolute_ones_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert paths.anchored("runs/tiny-llama") == paths.ROOT / "runs" / "tiny-llama"
    assert paths.anchored(tmp_path) == tmp_path
    assert (paths.ROOT / "pyproject.toml").is_file()
    assert all(
        isinstance(folder, Path) and folder.is_absolute() for folder in (paths.RUNS, paths.RESULTS, paths.TABLES)
    )


def test_a_home_that_is_not_there_is_one_line():
    with pytest.raises(InputError, match="~nobody-of-this-name/x: there is no such user"):
        paths.user_path("~nobody-of-this-name/x")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (None, "None: is no name of a file; give it as a text"),
        ("", "'': is no name of a file; write one"),
        ("a\0b", "leave the character of number 0 out"),
        ("x" * 500, r"^x{80}: cannot be looked for \(File name too long\); name another one"),
    ],
)
def test_what_is_no_name_is_one_line(name, said):
    with pytest.raises(InputError, match=said):
        paths.user_path(name)
    with pytest.raises(InputError, match=said):
        write_atomically(name, "text")


def test_a_file_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match=r"x: cannot be written \(.+\); name another place"):
        write_atomically(tmp_path / "file" / "deeper" / "x", "text")


def test_a_folder_is_no_file_to_write(tmp_path):
    (tmp_path / "log").mkdir()
    with pytest.raises(InputError, match="log: is a folder; name a file"):
        paths.write_atomically(tmp_path / "log", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_texts_come_back_whatever_characters_they_hold(tmp_path):
    texts = ["a\rb", "a\r\nb\n", 'say "no", please', "", "NA", "\ufeffx\u2028y", " 7 "]
    table = pandas.DataFrame({"id": [f"p{n}" for n in range(len(texts))], "n": range(len(texts)), "text": texts})
    path = tmp_path / "rows.csv"
    write_texts(path, table[:3], mode="a")
    write_texts(path, table[3:], mode="a")
    read = pandas.read_csv(path, keep_default_na=False)
    assert read.to_dict("list") == table.to_dict("list")
    write_texts(path, table[:1])
    assert len(pandas.read_csv(path)) == 1
