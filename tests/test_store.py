"""Cached stages: hits, misses, damage, and a kill between any two calls to the file system."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import Killed
from filelock import FileLock

from llmva.core import paths, store
from llmva.core.errors import InputError
from llmva.core.paths import ROOT
from llmva.core.store import MANIFEST, Stage, is_whole, open_stage, read_manifest, run_stage, stage_key

FILES = {"a.txt": b"first", "below/b.bin": bytes(range(256))}


class Killer:
    """Raises `Killed` at the n-th call to the file system; Python announces each one before it happens."""

    events = frozenset({"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.scandir", "os.listdir"})

    def __init__(self) -> None:
        self.left = None

    def __call__(self, event: str, _arguments: tuple) -> None:
        if self.left is None or event not in self.events:
            return
        self.left -= 1
        if self.left == 0:
            self.left = None
            raise Killed

    def survived(self, calls: int, action) -> bool:
        """Run an action that is killed at its n-th call; tell whether it ended before that."""
        self.left = calls
        try:
            action()
        except Killed:
            return False
        finally:
            self.left = None
        return True


KILLER = Killer()
# An audit hook cannot be taken off again; it sleeps between tests.
sys.addaudithook(KILLER)


@pytest.fixture(autouse=True)
def _no_versions(monkeypatch):
    # They ask git and the packages, which is slow and not what is tested here.
    monkeypatch.setattr(store, "environment", dict)


def write_files(folder: Path) -> dict:
    for name, content in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    return {"rows": 3}


def forbidden(_place: Path) -> None:
    raise AssertionError("a hit must not compute")


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def leftovers(folder: Path) -> set[str]:
    return set(os.listdir(folder.parent)) - {folder.name, f".{folder.name}.lock"}


# Hits and misses


def test_a_stage_is_computed_once_and_then_found(tmp_path):
    first = run_stage(tmp_path / "runs" / "stage", write_files, parameters={"seed": 1})
    second = run_stage(tmp_path / "runs" / "stage", forbidden, parameters={"seed": 1})
    assert (first.hit, second.hit) == (False, True)
    assert first.key == second.key
    assert contents(second.folder) == FILES
    assert second / "a.txt" == tmp_path / "runs" / "stage" / "a.txt"
    assert leftovers(second.folder) == set()


def test_the_manifest_says_what_the_files_are(tmp_path):
    upstream = Stage(tmp_path / "before", "0" * 64, hit=True)
    stage = run_stage(tmp_path / "stage", write_files, parameters={"seed": 1}, upstream=[upstream], version=2)
    manifest = stage.manifest
    assert manifest["key"] == stage.key == stage_key({"seed": 1}, [upstream], 2)
    assert manifest["parameters"] == {"seed": 1}
    assert manifest["upstream"] == {"before": "0" * 64}
    assert set(manifest["files"]) == set(FILES)
    assert manifest["facts"] == {"rows": 3}


@pytest.mark.parametrize(
    "change",
    [
        {"parameters": {"seed": 2}},
        {"parameters": {"seed": 1, "more": None}},
        {"version": 2},
        {"upstream": [Stage(Path("other"), "1" * 64, hit=True)]},
    ],
)
def test_whatever_is_in_the_key_makes_it_compute_again(tmp_path, change):
    run_stage(tmp_path / "stage", write_files, parameters={"seed": 1})
    changed = run_stage(
        tmp_path / "stage",
        lambda folder: (folder / "new.txt").write_text("x") and None,
        **{"parameters": {"seed": 1}, **change},
    )
    assert not changed.hit
    # The old files are gone with their stage.
    assert contents(changed.folder) == {"new.txt": b"x"}


def test_the_name_of_a_folder_upstream_is_no_part_of_the_key():
    here, there = (Stage(Path(name), "1" * 64, hit=True) for name in ("here", "there"))
    assert stage_key({}, [here], 1) == stage_key({}, [there], 1)


# Damage


def damage_content(folder: Path) -> None:
    (folder / "a.txt").write_bytes(b"FIRST")


def damage_by_cutting(folder: Path) -> None:
    (folder / "below" / "b.bin").write_bytes(FILES["below/b.bin"][:100])


def damage_by_removing(folder: Path) -> None:
    (folder / "a.txt").unlink()


def damage_manifest(folder: Path) -> None:
    (folder / MANIFEST).write_text((folder / MANIFEST).read_text()[:40])


def damage_manifest_bytes(folder: Path) -> None:
    (folder / MANIFEST).write_bytes(b"\xff\xfe\x00")


def damage_manifest_keys(folder: Path) -> None:
    (folder / MANIFEST).write_text("[]")


@pytest.mark.parametrize(
    "damage",
    [
        damage_content,
        damage_by_cutting,
        damage_by_removing,
        damage_manifest,
        damage_manifest_bytes,
        damage_manifest_keys,
    ],
)
def test_a_damaged_stage_is_noticed_and_computed_again(tmp_path, damage):
    stage = run_stage(tmp_path / "stage", write_files, parameters={})
    damage(stage.folder)
    assert not is_whole(stage.folder, stage.key)
    again = run_stage(tmp_path / "stage", write_files, parameters={})
    assert not again.hit
    assert contents(again.folder) == FILES
    assert is_whole(again.folder, again.key)


def test_a_stage_that_must_be_there_says_how_to_make_it(tmp_path):
    with pytest.raises(InputError, match="stage: no finished stage here; run notebook 00 first"):
        open_stage(tmp_path / "stage", fix="run notebook 00 first")
    run_stage(tmp_path / "stage", write_files, parameters={})
    assert open_stage(tmp_path / "stage", fix="").hit


# Kills


def computed_old(folder: Path) -> None:
    (folder / "old.txt").write_text("old")


@pytest.mark.parametrize("before", ["nothing", "an older stage"])
def test_a_kill_between_any_two_calls_to_the_file_system_is_survived(tmp_path, before):
    new, old = {"seed": 1}, {"seed": 0}
    kills = 0
    while True:
        folder = tmp_path / str(kills) / "stage"
        if before == "an older stage":
            run_stage(folder, computed_old, parameters=old)
        if KILLER.survived(kills + 1, lambda folder=folder: run_stage(folder, write_files, parameters=new)):
            break
        kills += 1
        # What a kill leaves is the old stage, none or the new one, and never a mixture.
        assert not folder.exists() or is_whole(folder)
        if folder.exists() and read_manifest(folder)["key"] == stage_key(old, (), 1):
            assert contents(folder) == {"old.txt": b"old"}
        stage = run_stage(folder, write_files, parameters=new)
        assert is_whole(folder, stage.key), f"killed at call {kills}"
        assert contents(folder) == FILES, f"killed at call {kills}"
        assert leftovers(folder) == set(), f"killed at call {kills}"
    # Lock, folder, two files, a folder below, manifest, digests, rename: fewer would mean the hook is deaf.
    assert kills >= 10


def test_a_failing_computation_leaves_the_old_stage(tmp_path):
    run_stage(tmp_path / "stage", computed_old, parameters={"seed": 0})

    def failing(folder: Path) -> None:
        write_files(folder)
        raise ValueError("out of luck")

    with pytest.raises(ValueError, match="out of luck"):
        run_stage(tmp_path / "stage", failing, parameters={"seed": 1})
    assert run_stage(tmp_path / "stage", forbidden, parameters={"seed": 0}).hit


CHILD = """
import os, sys, time
from pathlib import Path
from llmva.core.store import run_stage

folder, mode, name = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
parent = folder.parent.parent

def compute(folder):
    with open(parent / "computed", "a") as log:
        log.write(name + "\\n")
    (folder / "a.txt").write_bytes(b"fir")
    if mode == "hang":
        print("computing", flush=True)
        time.sleep(600)
    # The other process must have come as far as the lock, or nearly.
    for _ in range(600):
        if len(list(parent.glob("*.started"))) == 2:
            break
        time.sleep(0.05)
    time.sleep(0.2)
    (folder / "a.txt").write_bytes(b"first")

(parent / f"{name}.started").touch()
print(run_stage(folder, compute, parameters={"seed": 1}).hit)
"""


def child(folder: Path, mode: str, name: str) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(folder), mode, name], stdout=subprocess.PIPE, text=True, env=environment
    )


def test_a_process_killed_while_it_computes_neither_blocks_nor_spoils_the_next(tmp_path):
    folder = tmp_path / "runs" / "stage"
    with child(folder, "hang", "first") as process:
        assert process.stdout.readline() == "computing\n"
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not folder.exists()
    assert leftovers(folder) == {".stage.partial"}
    stage = run_stage(folder, write_files, parameters={"seed": 1})
    assert not stage.hit
    assert contents(folder) == FILES
    assert leftovers(folder) == set()


def test_two_processes_compute_a_stage_once(tmp_path):
    folder = tmp_path / "runs" / "stage"
    processes = [child(folder, "wait", name) for name in ("first", "second")]
    answers = [process.communicate(timeout=120)[0].strip() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(answers) == ["False", "True"]
    assert len((tmp_path / "computed").read_text().splitlines()) == 1
    assert contents(folder) == {"a.txt": b"first"}


# A disk that is full: the kernel itself refuses to write more than some bytes into a file.

FULL = """
import resource, sys
from pathlib import Path
import numpy
from safetensors.numpy import save_file
from llmva.core.errors import command
from llmva.core.store import run_stage

def as_tensors(folder):
    save_file({"values": numpy.ones(100_000)}, folder / "values.safetensors")

def as_text(folder):
    (folder / "values.csv").write_text("1\\n" * 100_000)

@command
def main():
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
    run_stage(Path(sys.argv[1]), globals()[sys.argv[2]], parameters={"seed": 2})

main()
"""


@pytest.mark.parametrize("kind", ["as_tensors", "as_text"])
def test_a_full_disk_gets_one_line_and_leaves_nothing_half_written(tmp_path, kind):
    folder = tmp_path / "runs" / "stage"
    run_stage(folder, write_files, parameters={"seed": 1})
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(folder), kind], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 2
    assert done.stderr == (
        f"error: {folder}: cannot be written (File too large); make room and run again, what was finished is kept\n"
    )
    assert contents(folder) == FILES and leftovers(folder) == set()
    assert run_stage(folder, forbidden, parameters={"seed": 1}).hit


def test_other_errors_of_the_system_are_passed_on(tmp_path):
    def stumble(folder):
        raise FileNotFoundError(errno.ENOENT, "no such thing")

    with pytest.raises(FileNotFoundError):
        run_stage(tmp_path / "stage", stumble, parameters={})


# Places that cannot be


def test_a_file_in_the_stages_place_is_refused_and_left_alone(tmp_path):
    (tmp_path / "stage").write_text("mine")
    with pytest.raises(InputError, match="stage: is a file, not a folder; name another folder"):
        run_stage(tmp_path / "stage", forbidden, parameters={})
    assert (tmp_path / "stage").read_text() == "mine"


def test_a_mount_point_is_refused_before_anything_is_computed(tmp_path, monkeypatch):
    (tmp_path / "stage").mkdir()
    monkeypatch.setattr(Path, "is_mount", lambda path: path.name == "stage")
    with pytest.raises(InputError, match="stage: is a mount point, which cannot be replaced; name a folder inside it"):
        run_stage(tmp_path / "stage", forbidden, parameters={})


def test_a_stage_that_had_stepped_aside_is_found_again(tmp_path):
    old = run_stage(tmp_path / "stage", write_files, parameters={"seed": 0})
    old.folder.rename(tmp_path / ".stage.old")

    def fail(folder):
        raise InputError("on purpose")

    with pytest.raises(InputError, match="on purpose"):
        run_stage(tmp_path / "stage", fail, parameters={"seed": 1})
    assert is_whole(tmp_path / "stage", old.key) and contents(tmp_path / "stage") == FILES


@pytest.mark.parametrize("folder", ["file/stage", "file/deeper/stage"])
def test_a_file_above_the_stages_place_is_refused(tmp_path, folder):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="is a file, not a folder; name another folder"):
        run_stage(tmp_path / folder, forbidden, parameters={})
    assert os.listdir(tmp_path) == ["file"]


def test_a_parent_that_cannot_be_written_to_is_refused_before_anything_is_computed(tmp_path, monkeypatch):
    # Root may write anywhere, so the system's answer is replaced.
    monkeypatch.setattr(os, "access", lambda path, mode: not (Path(path) == tmp_path and mode == os.W_OK))
    with pytest.raises(InputError, match="not writable; change its permissions or name another folder"):
        run_stage(tmp_path / "stage", forbidden, parameters={})
    assert os.listdir(tmp_path) == []


def test_a_place_where_nobody_can_make_a_folder_is_refused_before_anything_is_computed(tmp_path, monkeypatch):
    # As in /proc, where permissions promise it to root.
    def refused(**_options):
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr("tempfile.mkdtemp", refused)
    with pytest.raises(InputError, match=r": no folder can be made in it \(No such file or directory\); name another"):
        run_stage(tmp_path / "stage", forbidden, parameters={})


@pytest.mark.parametrize("name", ["edit_log.safetensors", "direction.safetensors"])
def test_a_place_inside_a_finished_result_is_refused_unless_the_runs_are_there(tmp_path, monkeypatch, name):
    run_stage(tmp_path / "out", lambda folder: (folder / name).write_text("") and None, parameters={})
    for inside in (tmp_path / "out" / "x", tmp_path / "out" / "adapter" / "x"):
        with pytest.raises(InputError, match=r"x: lies in .*out, which holds a finished result; name a folder outside"):
            run_stage(inside, forbidden, parameters={})
    monkeypatch.setattr(paths, "RUNS", tmp_path / "out" / "runs")
    assert not run_stage(tmp_path / "out" / "runs" / "stage", write_files, parameters={}).hit


def test_a_parent_that_cannot_be_made_is_refused(tmp_path, monkeypatch):
    def refused(self, **_options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(InputError, match=r"runs: cannot be made \(Permission denied\); name another folder"):
        run_stage(tmp_path / "runs" / "stage", forbidden, parameters={})


def test_a_manifest_is_plain_json(tmp_path):
    stage = run_stage(tmp_path / "stage", write_files, parameters={"name": "é"})
    assert json.loads((stage.folder / MANIFEST).read_bytes())["parameters"] == {"name": "é"}


EDITED = ({"key": "k", "files": []}, {"key": "k", "files": {}}, {"key": 1, "files": {}, "facts": {}}, [])


@pytest.mark.parametrize("manifest", EDITED, ids=str)
def test_a_manifest_that_someone_edited_is_no_manifest(tmp_path, manifest):
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    assert read_manifest(tmp_path) is None and not is_whole(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK])
@pytest.mark.parametrize("left", [False, True])
def test_a_disk_without_locks_is_told_and_no_reason_to_stop_or_to_wait(tmp_path, capsys, monkeypatch, number, left):
    def flock(descriptor, operation):
        raise OSError(number, os.strerror(number))

    if left:
        # By a run on a disk that had some.
        (tmp_path / ".stage.lock").touch()
    monkeypatch.setattr("fcntl.flock", flock)
    for hit in (False, True):
        assert run_stage(tmp_path / "stage", lambda folder: None, parameters={}).hit is hit
        assert "stage: its file system has no locks; do not run it twice at once" in capsys.readouterr().err


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to("elsewhere")])
def test_a_lock_that_cannot_be_is_no_reason_to_wait(tmp_path, make):
    make(tmp_path / ".stage.lock")
    with pytest.raises(InputError, match=r"\.stage\.lock: cannot be locked, .*; remove it"):
        run_stage(tmp_path / "stage", forbidden, parameters={})


def test_a_run_that_waits_for_another_one_says_so(tmp_path, capsys):
    with FileLock(tmp_path / ".stage.lock"):
        waiting = threading.Thread(
            target=run_stage, args=(tmp_path / "stage", lambda folder: None), kwargs={"parameters": {}}
        )
        waiting.start()
        begun = time.monotonic()
        while "another run" not in (printed := capsys.readouterr().err):
            assert waiting.is_alive() and time.monotonic() < begun + 60
    waiting.join()
    assert str(tmp_path / "stage") in printed and is_whole(tmp_path / "stage")
    # The lock is free again.
    assert run_stage(tmp_path / "stage", lambda folder: None, parameters={}).hit
