"""The notebooks' form: short cells, one skeleton, run once from top to bottom, nothing toxic in sight."""

import ast
import html
import re
import statistics

import nbformat
import pandas
import pytest

from llmva.core import paths
from llmva.core.vocabulary import SAFETY_SETS
from llmva.organisms.corpus import candidate_table

NOTEBOOKS = sorted(paths.NOTEBOOKS.glob("*.ipynb"))
# Run-time steering and the pretrained model have parameters of their own.
PER_MODEL = [path for path in NOTEBOOKS if path.name[0] in "01" and not path.name.startswith(("12", "17"))]
BOX = ("Paper item", "Reads", "Writes", "Cost")
MAX_CELLS, MAX_LINES, MAX_MODULES, LEAST_MARKDOWN = 30, 20, 5, 0.4
# Tables are cut after 50 characters; this much of a prompt is enough to know it by.
PREFIX = 40
PROMPTS = pandas.concat([candidate_table(name, 0) for name in SAFETY_SETS])

each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells_of(path, kind: str | None = None) -> list:
    cells = nbformat.read(path, as_version=4).cells
    return [cell for cell in cells if kind in (None, cell.cell_type)]


def lines_of(cell) -> list[str]:
    return cell.source.splitlines()


def texts_of(cell) -> list[str]:
    """Return everything a code cell shows as text."""
    shown = [output.get("text", "") for output in cell.outputs]
    for output in cell.outputs:
        shown += [text for kind, text in output.get("data", {}).items() if kind.startswith("text/")]
        shown += output.get("traceback", [])
    return [html.unescape(text) for text in shown]


def test_the_story_is_complete():
    stems = [path.stem for path in NOTEBOOKS]
    assert stems[:-1] == [
        "00_start_here",
        "01_orthogonality",
        "02_svm_identification",
        "03_layer_selection",
        "04_alignment_loop",
        "05_main_results",
        "06_utility",
        "07_ablation_angle",
        "08_ablation_iterations",
        "09_ablation_layers",
        "10_transferability",
        "11_judges",
        "12_runtime_steering",
        "13_ridge_edit",
        "14_align_your_model",
        "15_side_by_side",
        "16_performance",
        "17_pretrained_model",
        "18_trade_off",
    ]
    assert stems[-1] == "20_paper"
    assert all(re.fullmatch(r"\d\d_[a-z0-9_]+", stem) for stem in stems)


# The budget


@each
def test_a_notebook_is_short_and_explains_itself(path):
    cells, code = cells_of(path), cells_of(path, "code")
    assert len(cells) <= MAX_CELLS
    assert len(cells_of(path, "markdown")) / len(cells) >= LEAST_MARKDOWN
    assert max(len(lines_of(cell)) for cell in code) <= MAX_LINES
    assert 2 <= statistics.median(len(lines_of(cell)) for cell in code) <= 5


@each
def test_a_notebook_imports_few_modules_of_the_library(path):
    nodes = [node for cell in cells_of(path, "code") for node in ast.walk(ast.parse(cell.source))]
    modules = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module.startswith("llmva")}
    assert 0 < len(modules) <= MAX_MODULES


@each
def test_no_output_ends_in_a_digest(path):
    shown = [text for cell in cells_of(path, "code") for text in texts_of(cell)]
    assert not [text for text in shown if re.search(r"\b[0-9a-f]{12,64}['\"}]*$", text.strip())]


@each
def test_what_is_defined_is_defined_in_the_library(path):
    forbidden = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.For, ast.While, ast.If, ast.Try)
    for cell in cells_of(path, "code"):
        found = [type(node).__name__ for node in ast.walk(ast.parse(cell.source)) if isinstance(node, forbidden)]
        assert not found, cell.source


@each
def test_no_cell_is_empty(path):
    assert all(cell.source.strip() for cell in cells_of(path))


# The skeleton


@each
def test_a_notebook_opens_with_its_number_a_question_and_a_box(path):
    title, _, rest = cells_of(path, "markdown")[0].source.partition("\n")
    assert re.fullmatch(rf"# {path.stem[:2]} · \S.*", title)
    question = rest.strip().splitlines()[0]
    assert re.fullmatch(r"\*\*[A-Z][^*]+\?\*\*", question)
    rows = re.findall(r"^\| ([^|]+) \| (\S.*) \|$", rest, flags=re.MULTILINE)
    assert [name for name, _ in rows] == list(BOX)


@each
def test_a_notebook_has_one_parameters_cell_before_all_other_code(path):
    code = cells_of(path, "code")
    tagged = [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]
    assert tagged == code[:1]
    for statement in ast.parse(tagged[0].source).body:
        # papermill does not recompute what is derived: literals only.
        assert isinstance(statement, ast.Assign)
        ast.literal_eval(statement.value)


def test_the_per_model_notebooks_share_one_parameters_cell():
    assert len({cells_of(path, "code")[0].source for path in PER_MODEL}) == 1


@each
def test_a_notebook_checks_itself_and_ends_with_a_reading(path):
    cells = cells_of(path)
    headings = [lines_of(cell)[0] if cell.cell_type == "markdown" else "" for cell in cells]
    check, reading = headings.index("## Check"), headings.index("## Reading")
    assert check < reading == len(cells) - 1
    checked = [cell.source for cell in cells[check:reading] if cell.cell_type == "code"]
    assert any(isinstance(node, ast.Assert) for source in checked for node in ast.walk(ast.parse(source)))
    sentences = re.findall(r"[.?!](?=\s|$)", "\n".join(lines_of(cells[reading])[1:]))
    assert len(sentences) >= 3


# What is tracked


@each
def test_a_notebook_names_a_kernel_that_everybody_has(path):
    kernel = nbformat.read(path, as_version=4).metadata["kernelspec"]
    assert (kernel["name"], kernel["language"]) == ("python3", "python")


@each
def test_a_notebook_is_valid_and_ends_with_a_newline(path):
    nbformat.validate(nbformat.read(path, as_version=4))
    assert path.read_bytes().endswith(b"}\n")


@each
def test_a_notebook_was_run_once_from_top_to_bottom_without_an_error(path):
    code = cells_of(path, "code")
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert outputs
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"]


@each
def test_no_output_names_a_place_of_the_machine_it_was_made_on(path):
    shown = "\n".join(text for cell in cells_of(path, "code") for text in texts_of(cell))
    assert not re.search(r"(?<![\w.])/(home|root|tmp|work|Users|opt|private)/", shown)


def test_toxic_prompts_can_be_told_by_their_beginnings():
    beginnings = toxic_beginnings()
    toxic = PROMPTS.loc[PROMPTS["label"] == "toxic", "prompt"]
    # The others are borderline: the same words stand under both labels.
    assert toxic.str[:PREFIX].isin(beginnings).mean() > 0.85
    planted = f"<td>{toxic.iloc[0][:47]}...</td>"
    assert shown_beginnings(planted, beginnings)


@each
def test_no_output_shows_a_toxic_prompt(path):
    shown = "\n".join(text for cell in cells_of(path, "code") for text in texts_of(cell))
    assert not shown_beginnings(shown, toxic_beginnings())


def toxic_beginnings() -> set[str]:
    """Return how the generated toxic prompts begin, those aside that begin like a benign one."""
    toxic, benign = (PROMPTS.loc[PROMPTS["label"] == label, "prompt"].str[:PREFIX] for label in ("toxic", "benign"))
    return set(toxic) - set(benign)


def shown_beginnings(text: str, beginnings: set[str]) -> list[str]:
    # A whole short prompt must not be found inside a longer word.
    return [
        beginning
        for beginning in beginnings
        if beginning in text and (len(beginning) == PREFIX or re.search(rf"\b{re.escape(beginning)}(?!\w)", text))
    ]
