"""Stages side by side: the files that one process gives, errors in a line, and no process that stays behind."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from conftest import prompt_table, save_random_model

from llmva.core.params import load_params
from llmva.core.paths import ROOT

# Run as a module of its own, since processes that begin afresh see nothing that a test has changed.
SCRIPT = """
import json, sys
from functools import partial
from llmva.core.params import StudyParams
from llmva.study.evaluation import evaluate_baseline
from llmva.study.side_by_side import compute_ahead
from llmva.study.stages import collect_prompts
from llmva.study.study import Study

if __name__ == "__main__":
    study = Study(StudyParams.checked(json.load(open(sys.argv[1]))))
    collect_prompts(study)
    names = ("Original", "AlphaSteer+", *sys.argv[2:])
    compute_ahead(study, [partial(evaluate_baseline, name=name) for name in names])
    print([evaluate_baseline(study, name).hit for name in names])
"""
CHANGES = {
    "slug": "toy", "judge": "phrases", "threads": 1, "generation": {"batch_size": 256, "max_new_tokens": 4},
    "pool_size": 40, "sample_per_dataset": 16, "iterations": 2, "probe": {"l_select": [2], "iterations": 1},
}  # fmt: skip


@pytest.fixture
def root(tmp_path):
    """A root folder with a study of a random model; the script that computes two of its stages."""
    save_random_model(tmp_path / "model")
    prompt_table(60).to_csv(tmp_path / "prompts.csv", index=False)
    values = load_params("tiny-llama").model_dump() | CHANGES
    values |= {"model": str(tmp_path / "model"), "data": str(tmp_path / "prompts.csv")}
    (tmp_path / "params.json").write_text(json.dumps(values))
    (tmp_path / "script.py").write_text(SCRIPT)
    return tmp_path


def begin(root, runs, processes, *names):
    environment = {"PYTHONPATH": str(ROOT / "src"), "LLMVA_ROOT": str(root / runs), "LLMVA_PROCESSES": str(processes)}
    command = [sys.executable, str(root / "script.py"), str(root / "params.json"), *names]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env={**os.environ, **environment}, **options)


def test_two_processes_leave_the_files_of_one(root):
    answers = {}
    for processes in (1, 2):
        running = begin(root, str(processes), processes)
        answers[processes], errors = running.communicate(timeout=300)
        assert running.returncode == 0, errors
    # Computed by whoever asks, and found, in this order.
    assert answers == {1: "[False, False]\n", 2: "[True, True]\n"}
    methods = [root / str(processes) / "runs" / "toy" / "methods" for processes in (1, 2)]
    files = [sorted(path.relative_to(folder) for path in folder.rglob("*.csv")) for folder in methods]
    assert files[0] == files[1] and len(files[0]) > 5
    for name in files[0]:
        assert (methods[0] / name).read_bytes() == (methods[1] / name).read_bytes(), name


def test_what_fails_there_fails_here(root):
    running = begin(root, "runs", 2, "no such method")
    _, errors = running.communicate(timeout=300)
    assert running.returncode == 1 and "KeyError: 'no such method'" in errors
    # The others' work is kept.
    assert (root / "runs" / "runs" / "toy" / "methods" / "original" / "manifest.json").is_file()


def test_no_process_outlives_a_killed_one(root):
    running = begin(root, "runs", 2)
    parent, deadline = psutil.Process(running.pid), time.monotonic() + 120
    while not (children := [child for child in parent.children() if "spawn_main" in " ".join(child.cmdline())]):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    # Long enough for them to have begun with their watch.
    time.sleep(15)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert not psutil.wait_procs(children, timeout=30)[1]
