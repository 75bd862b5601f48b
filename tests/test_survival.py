"""An alignment that is killed at any moment, or run twice at once, ends with the very same edit log."""

import os
import random
import signal
import subprocess
import sys
import time

import nbformat
import pytest
from conftest import prompt_table, save_random_model

from llmva.core import paths
from llmva.prompts.pools import assign_splits

LOOP = """
import sys
from pathlib import Path

import pandas

sys.path[:0] = [sys.argv[4]]
from test_alignment import SETTINGS, examiner_of
from dataclasses import replace
from llmva.judging import degeneracy
from llmva.method.loop import align
from llmva.models.chat_model import load_model
from llmva.core.text_cache import TextCache

model, pool, runs = sys.argv[1], pandas.read_csv(sys.argv[2]), Path(sys.argv[3])
examiner, neutral = examiner_of(load_model(model)), None
if sys.argv[5] == "ridge":
    neutral = pandas.DataFrame({"task": "gsm", "prompt": ["7 plus 5", "and 8"], "reply": ["12", "16, I think."]})
    # A random model's replies loop; the reference is there for the divergence.
    degeneracy.is_empty = degeneracy.is_looping = lambda reply: False
    check = degeneracy.DegeneracyCheck(load_model(model), 1e9, 64)
    examiner = replace(examiner, cache=TextCache(runs / "verdicts.sqlite"), degeneracy=check)
print("started", flush=True)
settings = SETTINGS.changed(iterations=6, update=sys.argv[5])
done = align(examiner, pool, settings, folder=runs, upstream=(), neutral=neutral)
done.log.save(runs / "edit_log.safetensors", {"model": "toy"})
done.history.to_csv(runs / "history.csv")
"""


@pytest.fixture(scope="module", params=["exact", "ridge"])
def world(tmp_path_factory, request):
    """A random model, prompts, and what an undisturbed run leaves; also how long it took after loading.

    Exact edits, verdicts in memory; or ridge edits, with neutral rows, divergence and a cache on disk.
    """
    folder = tmp_path_factory.mktemp(request.param)
    save_random_model(folder / "model", "gemma2")
    pool = prompt_table()
    pool.assign(split=assign_splits(pool, seed=0)).to_csv(folder / "pool.csv", index=False)
    (folder / "whole").mkdir()
    with start(folder, "whole") as process:
        assert process.stdout.readline() == "started\n"
        begun = time.monotonic()
        assert process.wait(timeout=300) == 0
    return folder, time.monotonic() - begun


def start(folder, runs):
    (folder / runs).mkdir(exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(paths.ROOT / "src"), "OMP_NUM_THREADS": "1"}
    arguments = [folder / "model", folder / "pool.csv", folder / runs, paths.ROOT / "tests"]
    # The folder's name says how to edit: pytest adds a number to it.
    command = [sys.executable, "-c", LOOP, *map(str, arguments), folder.name.rstrip("0123456789")]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def results(folder, runs):
    return [(folder / runs / name).read_bytes() for name in ("edit_log.safetensors", "history.csv")]


def iterations(folder, runs):
    return sorted(path.parent.name for path in (folder / runs).glob("*/manifest.json"))


def test_killed_at_random_moments_it_ends_with_the_same_log_to_the_bit(world):
    folder, seconds = world
    # Other moments in each run; a failure says which.
    seed = random.randrange(10**6)
    generator, runs, finished = random.Random(seed), f"killed-{seed}", []
    for _ in range(3):
        with start(folder, runs) as process:
            assert process.stdout.readline() == "started\n"
            time.sleep(generator.uniform(0, 0.5 * seconds))
            process.send_signal(signal.SIGKILL)
        finished.append(len(iterations(folder, runs)))
    assert finished == sorted(finished)
    with start(folder, runs) as process:
        assert process.wait(timeout=300) == 0
    assert results(folder, runs) == results(folder, "whole"), seed
    assert iterations(folder, runs) == iterations(folder, "whole"), seed
    # Exact edits break a random model at once, and its loop is soon over.
    least = 4 if folder.name.startswith("ridge") else 2
    assert len(iterations(folder, runs)) >= least and not list((folder / runs).glob(".*.partial"))
    assert (folder / runs / "verdicts.sqlite").is_file() == folder.name.startswith("ridge")
    assert ("divergence" in (folder / runs / "history.csv").read_text()) == folder.name.startswith("ridge")


def test_two_runs_at_once_share_the_work_and_agree(world):
    folder, _ = world
    both = [start(folder, "both") for _ in range(2)]
    assert [process.wait(timeout=300) for process in both] == [0, 0]
    assert results(folder, "both") == results(folder, "whole")
    assert iterations(folder, "both") == iterations(folder, "whole")


FULL = """
import resource, sys
from pathlib import Path
from llmva.core.errors import command
from llmva.commands.notebooks import run_notebook

@command
def main():
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, resource.RLIM_INFINITY))
    run_notebook(Path(sys.argv[1]), Path(sys.argv[2]), {"slug": "toy"})

main()
"""


def test_a_disk_that_is_full_when_a_notebook_is_written_gets_one_line(tmp_path):
    cells = [nbformat.v4.new_code_cell('slug = ""'), nbformat.v4.new_code_cell('print("x" * 100_000)')]
    cells[0].metadata["tags"] = ["parameters"]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), tmp_path / "toy.ipynb")
    environment = {**os.environ, "PYTHONPATH": str(paths.ROOT / "src")}
    command = [sys.executable, "-c", FULL, str(tmp_path / "toy.ipynb"), str(tmp_path / "out.ipynb")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ") and "make room and run again" in done.stderr
    assert "Traceback" not in done.stderr
