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

from llmva.core import paths
from llmva.core.params import StudyParams, load_params
from llmva.core.paths import ROOT
from llmva.core.store import read_manifest
from llmva.study.evaluation import evaluate_baseline
from llmva.study.side_by_side import compute_ahead
from llmva.study.stages import collect_prompts
from llmva.study.study import Study

# A program of its own, since processes that begin afresh see nothing that a test has changed.
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
    names = ("no such method", "Original", "AlphaSteer+")
    try:
        compute_ahead(study, [partial(evaluate_baseline, name=name) for name in names])
    except KeyError as error:
        print(error.args[0])
    print([evaluate_baseline(study, name).hit for name in names[1:]])
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


def begin(root, processes):
    environment = {"PYTHONPATH": str(ROOT / "src"), "LLMVA_ROOT": str(root), "LLMVA_PROCESSES": str(processes)}
    command = [sys.executable, str(root / "script.py"), str(root / "params.json")]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env={**os.environ, **environment}, **options)


def test_two_processes_leave_the_files_of_one_and_an_error_takes_nothing_with_it(root, monkeypatch):
    said, errors = begin(root, 2).communicate(timeout=300)
    assert said == "no such method\n[True, True]\n", errors
    monkeypatch.setattr(paths, "RUNS", root / "alone")
    study = Study(StudyParams.checked(json.loads((root / "params.json").read_text())))
    collect_prompts(study)
    compute_ahead(study, [lambda study: pytest.fail("one process does nothing ahead")])
    alone = [evaluate_baseline(study, name) for name in ("Original", "AlphaSteer+")]
    assert not any(stage.hit for stage in alone)
    for stage in alone:
        ahead = read_manifest(root / "runs" / "toy" / "methods" / stage.folder.name)
        assert ahead["files"] == stage.manifest["files"] and ahead["key"] == stage.key


def test_no_process_outlives_a_killed_one(root):
    running = begin(root, 2)
    parent, deadline = psutil.Process(running.pid), time.monotonic() + 200
    while not (children := [child for child in parent.children() if "spawn_main" in " ".join(child.cmdline())]):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    running.send_signal(signal.SIGKILL)
    running.wait()
    # They import for some seconds before they can notice.
    assert not psutil.wait_procs(children, timeout=200)[1]
