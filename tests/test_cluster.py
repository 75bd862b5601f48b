"""`make LAUNCH=srun` on a real SLURM of one node: studies share it, failures fail, and a killed job resumes."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from llmva.core.paths import ROOT
from llmva.core.store import read_manifest

MODELS = ("tiny-llama", "tiny-qwen2", "tiny-gemma2")
STAGES = ("00_start_here", "01_orthogonality")
NEEDED = ("munged", "slurmctld", "slurmd", "srun", "scancel", "squeue", "make")
MISSING = [name for name in NEEDED if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None]
# Numbers of tests/reduced.yaml that the two notebooks read.
FEWER = {"candidates": 60, "pool_size": 40, "sample_per_dataset": 12, "transfer_size": 10, "null_draws": 2}

pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason=f"{', '.join(MISSING)}: not installed (Debian: slurmd, slurmctld, munge)"),
    pytest.mark.skipif(os.geteuid() != 0, reason="SLURM's daemons are started as root"),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Return the environment of a SLURM of one node with two CPUs."""
    folder = tmp_path_factory.mktemp("slurm")
    script = ROOT / "tests" / "cluster" / "slurm.sh"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    environment |= {"PATH": f"{os.environ['PATH']}:/usr/sbin", "SLURM_CONF": str(folder / "slurm.conf")}
    subprocess.run([script, "start", folder], check=True, env=environment, timeout=120)
    yield environment
    subprocess.run([script, "stop", folder], check=True, env=environment, timeout=60)


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """Return a copy of the repository, with organisms and small studies of them."""
    folder = tmp_path_factory.mktemp("repository")
    for name in ("src", "notebooks", "papermill_params", "organisms"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copy(ROOT / "Makefile", folder)
    for model in MODELS:
        path = folder / "papermill_params" / f"{model}.yaml"
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | FEWER))
    return folder


def begin(repository, environment, *options, models=MODELS):
    """Begin with the notebooks of some studies, each behind `srun`."""
    targets = [f"{STAGES[-1]}@{model}" for model in models]
    command = ["make", "-j3", *targets, f"PYTHON={sys.executable}", *options]
    return subprocess.Popen(
        command, cwd=repository, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def states(environment):
    """Return the states of the jobs that are there: `R` runs, `PD` waits."""
    said = subprocess.run(["squeue", "-h", "-o", "%t"], env=environment, capture_output=True, text=True, check=True)
    return said.stdout.split()


def digests(repository, model):
    return [read_manifest(repository / "runs" / model / stage)["files"] for stage in STAGES]


def test_two_studies_run_at_once_and_a_third_one_waits_until_a_killed_job_is_taken_up_again(repository, cluster):
    made = begin(repository, cluster, "LAUNCH_studies=srun -n1 -c1")
    seen = []
    while made.poll() is None:
        seen.append(states(cluster))
        time.sleep(0.2)
    assert made.returncode == 0, made.stdout.read()
    assert max(found.count("R") for found in seen) == 2
    assert any(found.count("R") == 2 and "PD" in found for found in seen)
    undisturbed = digests(repository, MODELS[0])

    for stage in STAGES:
        shutil.rmtree(repository / "runs" / MODELS[0] / stage)
    for memory in Path(repository / "runs" / MODELS[0]).glob("*.sqlite"):
        memory.unlink()
    made = begin(repository, cluster, "LAUNCH=srun -n1 -c1", models=MODELS[:1])
    while made.poll() is None and not (repository / "runs" / MODELS[0] / STAGES[0] / "manifest.json").is_file():
        time.sleep(0.05)
    subprocess.run(["scancel", "--signal=KILL", "--user=root"], env=cluster, check=True)
    said, _ = made.communicate(timeout=120)
    assert made.returncode == 2, said
    assert not (repository / "runs" / MODELS[0] / STAGES[1] / "manifest.json").is_file()
    made = begin(repository, cluster, "LAUNCH=srun -n1 -c1", models=MODELS[:1])
    said, _ = made.communicate(timeout=300)
    assert made.returncode == 0, said
    assert digests(repository, MODELS[0]) == undisturbed


def test_a_job_that_fails_fails_make(repository, cluster):
    os.utime(repository / "notebooks" / f"{STAGES[0]}.ipynb")
    made = begin(repository, cluster, "LAUNCH=srun -n1 -c1 false", models=MODELS[1:2])
    said, _ = made.communicate(timeout=120)
    assert made.returncode == 2 and "srun: error" in said
