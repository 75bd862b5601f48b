"""What is committed hangs together: tables and figures are exactly what results/ gives.

The commit is what is checked, not the working tree: whoever has run `make table2` on another
processor has results of their own there, and need not have drawn every figure anew.
"""

import io
import subprocess
import zipfile

import numpy
import pandas
import pytest
from matplotlib import image

from llmva.core import paths
from llmva.core.params import known_slugs
from llmva.core.results import is_organism
from llmva.paper.figures.catalogue import FIGURES
from llmva.paper.figures.drawing import add_seeds, file_names, save_figures
from llmva.paper.names import add_seeds as add_every_seed
from llmva.paper.tables.build import TABLES, save_table
from llmva.study.llm_va_r import COMPARED_BASELINES, CONTROLS, PARTS

BASES = ["tiny-llama", "tiny-gemma2", "tiny-mistral", "tiny-phi3", "tiny-qwen2", "tiny-qwen3"]
# Whose main results are committed, and whose ablations are as well.
WHOLE = ABLATED = BASES
EVERY_SEED = {"figure9", "table1", "table2", "table3", "table4", "utility"}
FIRST_SEED = {"prompts", "figure2", "figure3", "figure10", "history"}
ABLATIONS = {"figure6", "figure8", "figure11", "figure12", "judges", "noise", "shortcuts"}


def whole(folder, slug):
    """Tell whether all that a seed contributes to the tables is there."""
    return all((folder / slug / f"{item}.csv").is_file() for item in EVERY_SEED)


def seeds_of(folder):
    """Return how many seeds every organism has results of, as `--seeds` takes it."""
    seeds = 1
    while all(whole(folder, f"{base}-s{seeds}") for base in WHOLE):
        seeds += 1
    return seeds


def slugs_of(item, committed):
    """Return the models of a table: every organism, and the seeds that have what it is made from."""
    slugs = TABLES[item].with_results(add_every_seed(WHOLE, seeds_of(committed / "results")))
    assert set(WHOLE) <= set(slugs)
    return slugs


def studies_of(folder):
    """Return the studies of the table `draws`, in the Makefile's order; none before there is a second one."""
    bases = ("tiny-llama", "tiny-qwen2")
    slugs = sorted([*bases, *(f"{base}-draw{draw}" for draw in (1, 2) for base in bases)])
    present = [slug for slug in slugs if (folder / slug / "table2.csv").is_file()]
    return present if len(present) > len(bases) else []


def fresh_of(folder):
    """Return the organisms of notebook 13 that are no part of the other tables, in the Makefile's order."""
    slugs = [f"{base}-s{seed}" for seed in (10, 11) for base in BASES]
    return [slug for slug in slugs if (folder / slug / "ridge.csv").is_file()]


def budget_of(folder):
    """Return the studies of the table `budget`, in the Makefile's order."""
    slugs = [*BASES, *(f"{base}-fifth" for base in BASES)]
    return [slug for slug in slugs if (folder / slug / "table2.csv").is_file()]


# Tables that are made of studies of their own, by what names these.
def steered_of(folder):
    """Return the organisms that are steered at run time, in the order of the tables: the Makefile's, sorted."""
    return sorted(path.parent.name for path in folder.glob("*/runtime.csv"))


def pretrained_of(folder):
    """Return the seeds of the pretrained model whose main results are committed."""
    return [slug for slug in ("smol", "smol-s1", "smol-s2") if (folder / slug / "table2.csv").is_file()]


def pretrained_items(catalogue, folder):
    """Return what is made of the pretrained model alone: its slugs by item, as `make tables figures` finds them.

    Figures that average nothing are of its first seed.
    """
    slugs = pretrained_of(folder)
    usual = [item for item in catalogue if item not in catalogue.apart]
    wanted = {item: add_seeds(item, slugs[:1], len(slugs)) if catalogue is FIGURES else slugs for item in usual}
    return {
        item: catalogue[item].with_results(wanted[item]) for item in usual if catalogue[item].is_ready(wanted[item])
    }


def examples_of(folder):
    """Return the seed whose replies are shown."""
    return ["smol"]


STUDIES_OF = {
    "ridge": fresh_of,
    "draws": studies_of,
    "budget": budget_of,
    "runtime": steered_of,
    "examples": examples_of,
}
APART_OF = {"figure13": fresh_of, "figure13_controls": fresh_of}


@pytest.fixture(scope="module")
def committed(tmp_path_factory):
    """The committed results, tables and figures, in a folder of their own."""
    command = ["git", "-C", str(paths.ROOT), "archive", "--format=zip", "HEAD", "results", "tables", "figures"]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"no commit to check: {done.stderr.decode().strip()}")
    folder = tmp_path_factory.mktemp("committed")
    with zipfile.ZipFile(io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(autouse=True)
def elsewhere(committed, tmp_path, monkeypatch):
    """Read the committed results, write to a folder of the test's own."""
    monkeypatch.setattr(paths, "RESULTS", committed / "results")
    monkeypatch.setattr(paths, "TABLES", tmp_path / "tables")
    monkeypatch.setattr(paths, "FIGURES", tmp_path / "figures")


@pytest.mark.parametrize("item", [item for item in TABLES if item not in TABLES.apart])
def test_tables_are_rebuilt_from_results_to_the_byte(committed, item):
    for path in save_table(item, slugs_of(item, committed)):
        assert path.read_bytes() == (committed / "tables" / path.name).read_bytes(), path.name


@pytest.mark.parametrize("item", [item for item in FIGURES if item not in FIGURES.apart])
def test_figures_are_rebuilt_from_results(committed, item):
    slugs = add_seeds(item, FIGURES[item].with_results(WHOLE), seeds_of(committed / "results"))
    require_same(save_figures(item, slugs), committed)


def test_what_is_made_of_the_pretrained_model_is_rebuilt_from_results(committed):
    tables, figures = (pretrained_items(catalogue, committed / "results") for catalogue in (TABLES, FIGURES))
    assert {"table1", "table2", "table3", "table4", "utility", "margins"} <= set(tables)
    for item, slugs in tables.items():
        for path in save_table(item, slugs):
            assert path.read_bytes() == (committed / "tables" / path.name).read_bytes(), path.name
    for item, slugs in figures.items():
        require_same(save_figures(item, slugs), committed)


def test_make_rebuilds_what_is_committed(committed):
    def planned(*arguments):
        command = ["make", "--dry-run", "PYTHON=python", *arguments]
        return subprocess.run(command, cwd=paths.ROOT, capture_output=True, text=True, check=True).stdout

    for target in ("tables", "figures"):
        assert f"--seeds {seeds_of(committed / 'results')} --apart" in planned(target)
        assert "--seeds 1 --apart" in planned(target, "SEEDS=1")
    # What a reader ran alone is not averaged with what is tracked of other seeds.
    whole = planned("all", "MODELS=tiny-llama")
    assert (
        "llmva tables all --models tiny-llama --seeds 1 --apart" in whole
        and "--models tiny-llama --seeds 3" not in whole
    )


def test_what_rests_on_fresh_organisms_is_rebuilt_from_results(committed):
    for item in FIGURES.apart:
        slugs = APART_OF.get(item, steered_of)(committed / "results")
        require_same(save_figures(item, slugs), committed)


def test_every_fresh_organism_has_every_part_and_every_control(committed):
    loops = {"LLM-VA", "LLM-VA-R", *(variant.name for variant in (*PARTS, *CONTROLS))}
    for slug in fresh_of(committed / "results"):
        rows = pandas.read_csv(committed / "results" / slug / "ridge.csv")
        assert set(rows["method"]) == {"Original", *COMPARED_BASELINES, *loops}, slug


@pytest.mark.parametrize(
    ("item", "count"), [("ridge", 12), ("draws", 6), ("budget", 12), ("runtime", 6), ("examples", 1)]
)
def test_a_table_of_studies_of_its_own_is_rebuilt_from_results(committed, item, count):
    studies = STUDIES_OF[item](committed / "results")
    assert len(studies) == count
    for path in save_table(item, studies):
        assert path.read_bytes() == (committed / "tables" / path.name).read_bytes(), path.name


def require_same(files, committed):
    for path in files:
        name = path.relative_to(paths.FIGURES).as_posix()
        tracked = committed / "figures" / name
        assert tracked.is_file(), name
        if path.suffix == ".csv":
            assert path.read_bytes() == tracked.read_bytes(), name
        if path.suffix == ".png":
            # Other builds of the same library may draw an edge a little differently.
            assert numpy.abs(image.imread(path) - image.imread(tracked)).mean() < 0.01, name


def test_every_model_has_every_result(committed):
    assert {slug for slug in known_slugs() if is_organism(slug)} == set(BASES)
    for slug in WHOLE:
        expected = EVERY_SEED | FIRST_SEED | (ABLATIONS if slug in ABLATED else set())
        assert {path.stem for path in (committed / "results" / slug).glob("*.csv")} >= expected


def test_no_table_is_left_over(committed):
    made = {"performance.csv"}
    for item in TABLES:
        if item not in TABLES.apart:
            made |= {path.name for path in save_table(item, slugs_of(item, committed))}
    for item, slugs in pretrained_items(TABLES, committed / "results").items():
        made |= {path.name for path in save_table(item, slugs)}
    for item, named in STUDIES_OF.items():
        made |= {path.name for path in save_table(item, named(committed / "results"))}
    assert {path.name for path in (committed / "tables").iterdir()} == made


def test_no_figure_is_left_over(committed):
    seeds = seeds_of(committed / "results")
    made = set()
    for item in FIGURES:
        if item in FIGURES.apart:
            slugs = APART_OF.get(item, steered_of)(committed / "results")
        else:
            slugs = add_seeds(item, FIGURES[item].with_results(WHOLE), seeds)
        made |= {f"{name}.{suffix}" for name in file_names(item, slugs) for suffix in ("csv", "pdf", "png")}
    for item, slugs in pretrained_items(FIGURES, committed / "results").items():
        made |= {f"{name}.{suffix}" for name in file_names(item, slugs) for suffix in ("csv", "pdf", "png")}
    tracked = committed / "figures"
    assert {path.relative_to(tracked).as_posix() for path in tracked.rglob("*.*")} == made
