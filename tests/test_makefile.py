"""Make's graph: what it lists as out of date, and in which order."""

import os
import re
import shutil
import subprocess

import pytest

from llmva.core.paths import ROOT

CHAIN = ["00_start_here", "01_orthogonality", "03_layer_selection", "04_alignment_loop", "05_main_results"]


@pytest.fixture
def finished(tmp_path):
    """A folder in which a study is finished, with sources that can be touched."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("src", "notebooks", "papermill_params"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for number, name in enumerate(["../tiny-guard/organism", "organism", *CHAIN]):
        manifest = tmp_path / "runs" / "tiny-llama" / name / "manifest.json"
        manifest.parent.mkdir(parents=True)
        manifest.write_text("{}")
        os.utime(manifest, (2e9 + number, 2e9 + number))
    return tmp_path


def planned(folder, *options):
    """Return what Make would do for Table 2."""
    return made(folder, "--dry-run", "PYTHON=python", *options)


def made(folder, *options, target="table2"):
    """Let Make do Table 2, or another target, and return what it says."""
    done = subprocess.run(
        ["make", target, *options], cwd=folder, env=own_environment(), capture_output=True, text=True, check=True
    )
    return done.stdout


def own_environment():
    """Return the environment without what a Make leaves in it that runs the tests, with jobs side by side."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}


def listed(folder, *touched):
    """Return the notebooks that Make would list for Table 2 of tiny-llama after some files were touched."""
    for name in touched:
        os.utime(folder / name, (3e9, 3e9))
    return [
        line.split("echo ")[1].split()[0]
        for line in planned(folder, "MODELS=tiny-llama").splitlines()
        if "echo " in line
    ]


def test_a_finished_study_is_left_alone(finished):
    assert listed(finished) == []


@pytest.mark.parametrize("touched", ["src/llmva/engines/greedy.py", "papermill_params/tiny-llama.yaml"])
def test_what_all_stages_rest_on_makes_all_notebooks_due_in_order(finished, touched):
    assert listed(finished, touched) == CHAIN


def test_what_is_listed_stays_due_in_order_until_it_has_run(finished):
    for path in finished.rglob("*"):
        os.utime(path, (1e9, 1e9))
    os.utime(finished / "src/llmva/engines/greedy.py")
    for _ in range(2):
        # `true` stands for a process that is killed before its first notebook.
        made(finished, "MODELS=tiny-llama", "PYTHON=true")
        (due,) = (finished / "build" / "due").glob("*/tiny-llama")
        assert due.read_text().split() == CHAIN
        due.unlink()


def test_a_notebook_makes_those_behind_it_due(finished):
    assert listed(finished, "notebooks/04_alignment_loop.ipynb") == CHAIN[3:]


def test_another_tracked_organism_makes_its_study_due(finished):
    manifest = finished / "organisms" / "tiny-llama" / "manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("{}")
    os.utime(manifest, (1e9, 1e9))
    assert listed(finished) == []
    assert listed(finished, "organisms/tiny-llama/manifest.json") == CHAIN


@pytest.mark.parametrize(
    ("options", "alone"),
    [
        (["MODELS=tiny-llama"], True),
        (["MODELS=tiny-llama", "-j2"], False),
        (["MODELS=tiny-llama", "-j"], False),
        (["MODELS=tiny-llama", "SEEDS=3"], False),
        (["MODELS=tiny-llama tiny-qwen2"], False),
        (["MODELS=tiny-llama tiny-qwen2", "-j1"], False),
        (["MODELS=llama-3.1-8b gemma-2-9b"], True),
    ],
)
def test_a_study_has_all_cores_only_where_nothing_runs_beside_it(finished, options, alone):
    os.utime(finished / "notebooks" / "00_start_here.ipynb", (3e9, 3e9))
    said = planned(finished, *options)
    assert "--due" in said and ("LLMVA_PROCESSES=" in said) is alone


def test_tables_and_figures_make_no_notebook_due(finished):
    assert listed(finished, "src/llmva/paper/tables/layout.py") == []


@pytest.mark.parametrize(
    ("named", "steered"),
    [
        ("llama-3.3-70b", "llama-3.3-70b"),
        ("persona-llama-s1 tiny-llama", "persona-llama-s1"),
        (
            "tiny-llama",
            "persona-gemma2 persona-gemma2-s1 persona-llama persona-llama-s1 persona-qwen3 persona-qwen3-s1",
        ),
    ],
)
def test_models_that_are_named_are_steered_if_they_have_parameters_for_it(finished, named, steered):
    said = made(finished, "--dry-run", "PYTHON=python", f"MODELS={named}", target="runtime")
    assert said.strip().endswith(f"runtime --models {steered}")


# Clusters


def test_a_launcher_stands_before_heavy_recipes_alone(finished):
    os.utime(finished / "notebooks" / "00_start_here.ipynb", (3e9, 3e9))
    said = planned(finished, "MODELS=tiny-llama", "LAUNCH=srun -n1 --comment='x y'")
    launched = [line for line in said.splitlines() if "'srun' '-n1'" in line]
    assert launched and all("-m llmva notebooks --due" in line for line in launched)
    # The submitting machine's cores say nothing of the job's.
    assert "LLMVA_PROCESSES" not in said
    assert "-m llmva tables table2" in said and "srun" not in said.splitlines()[-1]


@pytest.mark.parametrize(
    ("target", "kind"), [("align", "align"), ("steer", "steer"), ("organisms", "organisms"), ("table2", "studies")]
)
def test_each_kind_of_recipe_may_have_a_launcher_of_its_own(finished, target, kind):
    os.utime(finished / "notebooks" / "00_start_here.ipynb", (3e9, 3e9))
    options = ["--dry-run", "PYTHON=python", "MODELS=tiny-llama", "LAUNCH=general", f"LAUNCH_{kind}=own --mem=9G"]
    said = made(finished, *options, target=target)
    assert "'own' '--mem=9G'" in said and "'general'" not in said


# What users give

SHELL_WORDS = [
    "'; touch ran; '", "$(shell touch ran)", "`touch ran`", "$$(touch ran)", "it's mine", 'a "b" c', "a,b #c",
]  # fmt: skip
TARGETS = {
    "align": ["MODEL", "FROM", "DATA", "OUT", "JUDGE", "MAPPING", "METHOD", "PREFER", "CHECKPOINT", "ALIGN_OPTIONS"],
    "plan": ["MODEL", "DATA", "JUDGE", "MAPPING", "METHOD", "GPU", "ALIGN_OPTIONS"],
    "steer": ["MODEL", "PAIRS", "METHOD", "OUT", "STEER_OPTIONS"],
    "data": ["OUT", "RELEASED", "SETS"],
    "compare": ["OUT"],
    "standard": ["OUT", "MOST"],
    "step": ["NB", "MODEL"],
}


@pytest.fixture
def echoing(tmp_path):
    """A folder, with signs of the shell in its name, whose Python prints what it is called with."""
    folder = tmp_path / "a b'c $(touch ran) d"
    folder.mkdir()
    shutil.copy(ROOT / "Makefile", folder)
    python = folder / "my python"
    python.write_text('#!/bin/sh\nfor word; do echo "[$word]"; done\n')
    python.chmod(0o755)
    return folder


@pytest.mark.parametrize("word", SHELL_WORDS)
@pytest.mark.parametrize("target", TARGETS)
def test_no_value_is_run_by_make_or_the_shell(echoing, target, word):
    folder = echoing
    for name in TARGETS[target]:
        said = made(folder, "PYTHON=./my python", f"{name}={word}", target=target)
        # Options come word by word, and blanks between them are as good as one.
        expected = [f"[{part}]" for part in word.split()] if name.endswith(("OPTIONS", "SETS")) else [f"[{word}]"]
        assert [line for line in said.splitlines() if line in expected][-len(expected) :] == expected, said
        assert not list(folder.parent.rglob("ran"))


def test_values_of_the_environment_are_texts_too(echoing, monkeypatch):
    monkeypatch.setenv("MODEL", "$(shell touch ran)")
    assert "[$(shell touch ran)]" in made(echoing, "PYTHON=./my python", target="align")
    assert not list(echoing.rglob("ran"))


@pytest.mark.parametrize(
    "setting",
    [
        *(f"{name}=a;touch ran" for name in ("MODELS", "DRAWS", "FRESH", "RUNTIME", "SEEDS")),
        "MODELS=$(shell touch ran)", "MODELS=../x", "SEEDS=%", "SEEDS=0", "SEEDS=99999999", "SEEDS=1 2", "MODELS=-s1",
        "FRESH=tiny-llama --all",
        "MODEL=a\ntouch ran",
    ],
)  # fmt: skip
def test_a_name_that_is_none_is_one_line(echoing, setting):
    folder = echoing
    command = ["make", "table2", "PYTHON=./my python", setting]
    options = {"env": own_environment(), "capture_output": True, "text": True, "check": False}
    done = subprocess.run(command, cwd=folder, **options)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and f"*** {setting.partition('=')[0]}: " in line
    assert not list(folder.rglob("ran")) and not list(folder.rglob("runs"))


OWN_VARIABLES = re.findall(r"^(?:define )?(\w+) *(?:[:?]?=|$)", (ROOT / "Makefile").read_text(), re.MULTILINE)
# What users may set; the environment's are also those of other programs.
USERS = ["BASE_PYTHON", "MODELS", "DRAWS", "FRESH", "PYTHON", "RUNTIME", "SEEDS", "SHELL"]
WORDS = ["else", "endef", "endif"]


@pytest.mark.parametrize("name", sorted({*OWN_VARIABLES, "TABLES", "python", "given"} - {*USERS, *WORDS}))
def test_a_variable_of_the_makefiles_own_is_none_to_give(echoing, name):
    failed = refused(echoing, "align", "MODEL=x", f"{name}=$(shell touch ran)")
    assert failed.endswith(f"*** {name}: is a variable of the Makefile's own; leave it out.  Stop.")


@pytest.mark.parametrize("name", ["PYTHONPATH", "CURDIR", "OMP_NUM_THREADS", "UNKNOWN"])
def test_any_other_variable_is_a_text_too(echoing, name):
    value = "$(shell touch ran)$HOME"
    done = subprocess.run(
        ["make", "align", "PYTHON=./my python", "MODEL=x", f"{name}={value}"],
        cwd=echoing, env=own_environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "[x]" in done.stdout and not list(echoing.parent.rglob("ran"))


def test_the_paths_of_the_environment_are_handed_on_as_they_are(echoing, monkeypatch):
    value = "/a $(shell touch ran)/$b:$$c"
    monkeypatch.setenv("PYTHONPATH", value)
    (echoing / "my python").write_text('#!/bin/sh\necho "[$PYTHONPATH]"\n')
    assert f"[{echoing}/src:{value}]" in made(echoing, "PYTHON=./my python", target="align")
    assert "[x]" not in made(echoing, "--dry-run", "PYTHON=./my python", "MODEL=x", target="plan")
    assert not list(echoing.parent.rglob("ran"))


def refused(folder, target, *settings):
    """Return the one line with which Make refuses to do a target."""
    command = ["make", target, "PYTHON=./my python", *settings]
    options = {"env": own_environment(), "capture_output": True, "text": True, "check": False}
    done = subprocess.run(command, cwd=folder, **options)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and not list(folder.parent.rglob("ran"))
    return line


@pytest.mark.parametrize("blank", ["", " "])
@pytest.mark.parametrize(
    ("target", "name"),
    [
        *((target, "MODEL") for target in ("plan", "step", "align", "steer", "doctor")), ("align", "DATA"),
        ("align", "JUDGE"), ("step", "NB"), ("data", "OUT"), ("steer", "PAIRS"), ("table2", "MODELS"), ("plan", "GPU"),
    ],
)  # fmt: skip
def test_what_is_given_and_empty_is_one_line(echoing, target, name, blank):
    assert refused(echoing, target, f"{name}={blank}").endswith(
        f"*** {name}: is empty; write a value, or leave it out.  Stop."
    )


@pytest.mark.parametrize(("given", "again"), [("1", True), ("yes", True), ("0", False), ("no", False), ("", False)])
def test_a_switch_that_is_set_to_no_is_off(echoing, given, again):
    said = made(echoing, "PYTHON=./my python", f"RETRAIN={given}", target="organisms")
    assert ("[--retrain]" in said) == again
