"""Parameters: YAML keys, fields and notebook cells agree, and a mistake gets one line that fixes it."""

import ast
import json
import os
import re
import subprocess
import sys

import pytest
import yaml

from llmva.core import paths
from llmva.core.errors import InputError
from llmva.core.params import SHAPE_FIELDS, StudyParams, known_slugs, load_params
from llmva.core.results import world_of
from llmva.core.yaml_files import read_yaml
from llmva.paper.tables.paper import read_paper_values

# Run-time steering has parameters of its own.
OTHERS = ("12", "17")
PER_MODEL = [path for path in sorted(paths.NOTEBOOKS.glob("[01]*.ipynb")) if not path.name.startswith(OTHERS)]
TRACKED = paths.PARAMS
REFERENCE = "tiny-llama"
# `thinking` is of few models, and stands in no file or notebook that does not say it.
FIELDS = [name for name in StudyParams.model_fields if name != "thinking"]


def values_of(slug: str = REFERENCE) -> dict:
    values = yaml.safe_load((TRACKED / f"{slug}.yaml").read_text(encoding="utf-8"))
    return {name: value for name, value in values.items() if name not in SHAPE_FIELDS}


def parameters_cell(path) -> str:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    tagged = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    assert len(tagged) == 1, path.name
    return "".join(tagged[0]["source"])


def literals_of(source: str) -> dict:
    """Return what a cell assigns; anything but a name given a literal fails."""
    found = {}
    for statement in ast.parse(source).body:
        assert isinstance(statement, ast.Assign) and len(statement.targets) == 1
        found[statement.targets[0].id] = ast.literal_eval(statement.value)
    return found


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of parameter files to spoil."""
    folder = tmp_path / "papermill_params"
    folder.mkdir()
    monkeypatch.setattr(paths, "PARAMS", folder)
    return folder


def write_params(folder, slug="toy", drop=(), **changes):
    values = {**values_of(), "slug": slug, **changes}
    path = folder / f"{slug}.yaml"
    path.write_text(yaml.safe_dump({name: value for name, value in values.items() if name not in drop}))
    return path


# Three places, one list


def test_there_are_notebooks_and_parameter_files_to_compare():
    assert len(PER_MODEL) >= 6
    assert {f"tiny-{family}" for family in ("llama", "gemma2", "mistral", "phi3", "qwen2", "qwen3")} <= set(
        known_slugs()
    )


@pytest.mark.parametrize("slug", known_slugs())
def test_every_parameter_file_loads_and_names_every_field_in_order(slug):
    assert list(values_of(slug)) == FIELDS
    assert load_params(slug).values == values_of(slug)


@pytest.mark.parametrize("slug", known_slugs())
def test_our_own_loop_has_as_many_trials_as_every_other_method(slug):
    # Its candidates share them evenly, so one may be left over; never one more.
    params = load_params(slug)
    ours = 1 + len(params.probe.l_select) * params.ridge.iterations
    assert params.trials - len(params.probe.l_select) < ours <= params.trials


@pytest.mark.parametrize("path", PER_MODEL, ids=lambda path: path.stem)
def test_every_notebooks_defaults_are_those_of_the_reference_file(path):
    # nbval injects nothing: the defaults are what the tests run.
    found = literals_of(parameters_cell(path))
    assert list(found) == FIELDS
    assert found == values_of()
    assert {name: type(value) for name, value in found.items()} == {n: type(v) for n, v in values_of().items()}


def test_every_notebook_has_the_same_parameters_cell_with_a_comment_on_each_line():
    cells = {parameters_cell(path) for path in PER_MODEL}
    assert len(cells) == 1
    assert all("  # " in line for line in cells.pop().splitlines())


# Mistakes


@pytest.mark.parametrize(
    ("changes", "field", "problem"),
    [
        ({"iteration": 30}, "iteration", "unknown parameter; known are slug, model"),
        ({"iterations": "thirty"}, "iterations", "is 'thirty'; input should be a valid integer"),
        ({"iterations": "30"}, "iterations", "is '30'; input should be a valid integer"),
        ({"threads": 2.0}, "threads", "is 2.0; input should be a valid integer"),
        ({"seed": True}, "seed", "is True; input should be a valid integer"),
        ({"seed": -1}, "seed", "is -1; input should be greater than or equal to 0"),
        (
            {"generation": {"batch_size": 0, "max_new_tokens": 8}},
            "generation.batch_size",
            "is 0; input should be greater",
        ),
        ({"svm": {"solver": "newton", "penalty": -1.0}}, "svm.penalty", "is -1.0; input should be greater than 0"),
        ({"svm": {"solver": "newton", "penalty": float("nan")}}, "svm.penalty", "is nan; input should be"),
        (
            {"svm": {"solver": "adam", "penalty": 1.0}},
            "svm.solver",
            "is 'adam'; input should be 'newton' or 'liblinear'",
        ),
        ({"svm": {"solver": "newton", "penalty": 1.0, "loss": "hinge"}}, "svm.loss", "unknown parameter"),
        (
            {"ridge": {"neutral_weight": -1.0, "damping": 0.1, "iterations": 1}},
            "ridge.neutral_weight",
            "is -1.0; input",
        ),
        ({"selection": "best"}, "selection", "is 'best'; input should be 'strict', 'guarded' or 'paper'"),
        ({"dtype": "int8"}, "dtype", "is 'int8'; input should be 'float32'"),
        (
            {"probe": {"l_select": [6, -8], "iterations": 2}},
            "probe.l_select.1",
            "is -8; input should be greater than 0",
        ),
        ({"probe": {"l_select": [], "iterations": 2}}, "probe.l_select", "at least 1 item"),
        ({"error_share": {"nq": 1.5}}, "error_share.nq", "is 1.5; input should be less than or equal to 1"),
        ({"model": ""}, "model", "at least 1 character"),
        ({"model": None}, "model", "is None; input should be a valid string"),
        ({"probe": {"l_select": [6], "iterations": 31}}, "probe.iterations", "larger than iterations; make it smaller"),
        ({"probe": {"l_select": [6, 6], "iterations": 2}}, "probe.l_select", "names one value twice; name it once"),
        (
            {"ablations": {"iterations": 2, "degrees": [30, 30], "draws": 1, "l_select": [2]}},
            "ablations.degrees",
            "names one value twice; name it once",
        ),
        ({"error_share": {"seval_attacks": 0.8}}, "error_share.seval_attacks", "no such set of prompts; known are sev"),
        (
            {"judge": {"model": "phrases", "mapping": "refusal"}},
            "judge.mapping",
            "phrases reads words, and has no lines of a guard to map; write `judge: phrases`",
        ),
        (
            {"judge": {"model": "guard", "mapping": "refusal", "x": 1}},
            "judge.x",
            "unknown parameter; known are model, mapping",
        ),
    ],
)
def test_a_mistake_in_a_file_names_the_file_the_field_and_the_fix(folder, changes, field, problem):
    path = write_params(folder, **changes)
    with pytest.raises(InputError) as caught:
        load_params("toy")
    message = str(caught.value)
    assert message.startswith(f"{path}: {field}: ")
    assert problem in message
    assert "\n" not in message


def test_a_missing_parameter_is_named(folder):
    path = write_params(folder, svm={"solver": "newton"})
    with pytest.raises(InputError, match="svm.penalty: missing; add it") as caught:
        load_params("toy")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "no parameters in it"),
        (b"- a\n- b\n", "no parameters in it"),
        (b"slug: [toy\n", "not readable as YAML"),
        (b"slug: toy\nseed: 0\nseed: 1\n", "'seed' stands twice from line 1 on"),
        (b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", "an alias in line 2; write the value out"),
        (b"a: " + b"x" * 100_000, "has 100,003 letters"),
        (b"a: " + b"[" * 9_000, "not readable as YAML"),
        (b"slug: caf\xe9\n", "not readable as YAML"),
    ],
)
def test_a_file_that_holds_no_parameters_is_named(folder, content, problem):
    (folder / "toy.yaml").write_bytes(content)
    with pytest.raises(InputError) as caught:
        load_params("toy")
    assert str(caught.value).startswith(f"{folder / 'toy.yaml'}: ")
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("iterations: 012", "iterations: is 012, which YAML reads as 10; write 10 if that is meant"),
        ("candidates: 1:30", "candidates: is 1:30, which YAML reads as 90"),
        ("seed: 0x1f", "seed: is 0x1f, which YAML reads as 31"),
        ("seed: 0b11", "seed: is 0b11, which YAML reads as 3"),
        ("pool_size: 1_000", "pool_size: is 1_000, which YAML reads as 1000"),
        ("probe: {l_select: [8, 012], iterations: 5}", "probe.l_select.1: is 012, which YAML reads as 10"),
        ("svm: {solver: newton, penalty: 1:30.5}", "svm.penalty: is 1:30.5, which YAML reads as 90.5"),
        ("7_0: 1", "line 1: is 7_0, which YAML reads as 70"),
    ],
)
def test_a_number_that_yaml_reads_otherwise_than_people_is_a_mistake(folder, line, problem):
    path = folder / "toy.yaml"
    path.write_text(f"{line}\n")
    with pytest.raises(InputError) as caught:
        load_params("toy")
    assert str(caught.value).startswith(f"{path}: {problem}")


def test_decimal_numbers_are_read(folder):
    (folder / "toy.yaml").write_text("a: [0, -3, +4, 10, 0.5, .5, 1., 1.0e-3, .inf]\n")
    assert read_yaml(folder / "toy.yaml") == {"a": [0, -3, 4, 10, 0.5, 0.5, 1.0, 0.001, float("inf")]}


def test_a_file_of_prompts_may_have_sets_of_its_own_in_the_shares_of_errors():
    params = StudyParams.checked(values_of() | {"data": "mine.csv", "error_share": {"my_set": 0.3}})
    params.require_sets(["my_set", "other"])
    with pytest.raises(ValueError, match=r"error_share\.my_set: no such set of prompts; known are .*, other$"):
        params.require_sets(["other"])


def test_a_key_that_is_no_word_is_a_mistake(folder):
    # YAML reads a bare `on` or `1` as a truth value or a number.
    path = write_params(folder)
    path.write_text(path.read_text() + "on: 2\n")
    with pytest.raises(InputError, match=r"toy\.yaml: .*True; keys should be strings"):
        load_params("toy")


def test_a_slug_that_is_not_the_files_name_is_a_mistake(folder):
    write_params(folder, "toy")
    (folder / "toy.yaml").rename(folder / "other.yaml")
    with pytest.raises(InputError, match="slug: is 'toy'; write 'other'"):
        load_params("other")


def test_an_unknown_slug_gets_the_known_ones(folder):
    write_params(folder, "toy")
    write_params(folder, "top")
    with pytest.raises(InputError, match=r"nosuch: unknown model; known are top, toy \(or add nosuch\.yaml\)"):
        load_params("nosuch")
    with pytest.raises(InputError, match="unknown model"):
        load_params("../papermill_params/nosuch-s1")


def run_command(root, *slugs: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(paths.ROOT / "src"), "LLMVA_ROOT": str(root)}
    command = [sys.executable, "-m", "llmva.core.params", *slugs]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=root, check=False)


def test_the_command_prints_checked_parameters_or_one_line_and_status_2(folder):
    root = folder.parent
    write_params(folder, "toy")
    good = run_command(root, "toy")
    assert (good.returncode, good.stderr) == (0, "")
    assert yaml.safe_load(good.stdout)["slug"] == "toy"
    path = write_params(folder, "toy", batchsize=256)
    for slug, expected in (
        ("toy", f"error: {path}: batchsize: unknown parameter"),
        ("nosuch", "error: nosuch: unknown"),
    ):
        bad = run_command(root, slug)
        assert (bad.returncode, bad.stdout) == (2, "")
        assert bad.stderr.startswith(expected)
        assert len(bad.stderr.splitlines()) == 1


# Seeds


def test_a_seed_in_a_slug_moves_the_models_own_paths_and_nothing_else():
    plain, seeded = load_params(REFERENCE), load_params(f"{REFERENCE}-s3")
    assert seeded.slug == "tiny-llama-s3"
    assert seeded.model == "runs/tiny-llama-s3/organism"
    assert seeded.data == "runs/tiny-llama-s3/organism/data"
    assert seeded.run_folder == paths.RUNS / "tiny-llama-s3"
    moved = {"slug", "model", "data"}
    assert seeded.model_dump(exclude=moved) == plain.model_dump(exclude=moved)


def test_a_file_of_its_own_goes_before_a_seed_suffix(folder):
    write_params(folder, "toy", candidates=100, model="runs/toy/organism")
    write_params(folder, "toy-s2", candidates=200)
    assert load_params("toy-s2").candidates == 200
    assert load_params("toy-s4").candidates == 100


def test_a_draw_is_a_study_of_the_same_model_with_another_seed():
    plain, drawn = load_params(REFERENCE), load_params(f"{REFERENCE}-draw2")
    assert (drawn.slug, drawn.seed, drawn.run_folder) == ("tiny-llama-draw2", 2, paths.RUNS / "tiny-llama-draw2")
    assert drawn.model_dump(exclude={"slug", "seed"}) == plain.model_dump(exclude={"slug", "seed"})
    assert load_params(f"{REFERENCE}-s1-draw3").model == "runs/tiny-llama-s1/organism"


def test_only_organisms_have_seeds(folder):
    write_params(folder, "real", model="owner/name@abc")
    with pytest.raises(InputError, match="only organisms have seeds"):
        load_params("real-s1")


def test_parameters_cannot_be_changed_after_the_check():
    with pytest.raises(ValueError, match="frozen"):
        load_params(REFERENCE).seed = 1


# Real models

# Our slugs by the paper's names.
PAPERS = {
    "Llama-3.1-8B": "llama-3.1-8b",
    "gemma-2-9b": "gemma-2-9b",
    "Mistral-v0.3-7B": "mistral-7b-v0.3",
    "Phi-3.5-4B": "phi-3.5-mini",
    "Phi-4-4B": "phi-4-mini",
    "Phi-4-15B": "phi-4",
    "Qwen2.5-3B": "qwen2.5-3b",
    "Qwen2.5-7B": "qwen2.5-7b",
    "Qwen2.5-14B": "qwen2.5-14b",
    "Qwen3-4B": "qwen3-4b",
    "Qwen3-8B": "qwen3-8b",
    "Qwen3-14B": "qwen3-14b",
}


@pytest.mark.parametrize("name", PAPERS)
def test_the_papers_models_have_the_released_codes_l_select(name):
    code = read_paper_values("table3").set_index("model")["l_select_code"]
    assert set(code.index) == set(PAPERS)
    params = load_params(PAPERS[name])
    assert params.probe.l_select == [code[name]]
    assert params.judge.startswith("Qwen/Qwen3Guard-Gen-8B@")


def test_a_judge_may_name_how_its_lines_are_read():
    params = StudyParams.checked(values_of() | {"judge": {"model": "runs/tiny-guard/organism", "mapping": "refusal"}})
    assert (params.judge_model, params.judge_mapping) == ("runs/tiny-guard/organism", "refusal")
    assert load_params("tiny-llama").judge_mapping == "outcome"
    with pytest.raises(InputError, match=r"judge\.mapping: is 'both'"):
        StudyParams.checked(values_of() | {"judge": {"model": "guard", "mapping": "both"}})


@pytest.mark.parametrize("slug", [slug for slug in known_slugs() if world_of(slug) == "real"])
def test_weights_on_the_hub_are_pinned_to_a_commit(slug):
    params = load_params(slug)
    for source in (params.model, params.judge):
        assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", source)
    assert params.dtype == "bfloat16" and params.data == "data/paper"


def test_a_fifth_is_the_same_study_with_a_fifth_of_the_trials():
    full, fifth = load_params("tiny-llama"), load_params("tiny-llama-fifth")
    assert (fifth.iterations, fifth.probe.iterations, fifth.ridge.iterations) == (6, 1, 3)
    assert fifth.trials == 8 and full.trials == 36 and fifth.probe.l_select == full.probe.l_select
    changed = {"slug", "iterations", "probe", "ridge"}
    assert fifth.model_dump(exclude=changed) == full.model_dump(exclude=changed)
    assert load_params("tiny-llama-s1-fifth").model == "runs/tiny-llama-s1/organism"
