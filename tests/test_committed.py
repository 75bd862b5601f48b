"""What is committed hangs together: tables and figures are exactly what results/ gives.

The commit is what is checked, not the working tree: whoever has run `make table2` on another
processor has results of their own there, and need not have drawn every figure anew.
"""

import io
import subprocess
import tarfile

import numpy
import pytest
from matplotlib import image

from llmva import figures, paths, tables
from llmva.params import known_slugs
from llmva.results import is_organism

MODELS = ["tiny-llama", *(slug for slug in known_slugs() if is_organism(slug) and slug != "tiny-llama")]
RESULTS = {"prompts", "figure2", "figure3", "figure9", "figure10", "table2", "table3", "utility", "history"}


@pytest.fixture(scope="module")
def committed(tmp_path_factory):
    """The committed results, tables and figures, in a folder of their own."""
    command = ["git", "-C", str(paths.ROOT), "archive", "HEAD", "results", "tables", "figures"]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"no commit to check: {done.stderr.decode().strip()}")
    folder = tmp_path_factory.mktemp("committed")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture(autouse=True)
def elsewhere(committed, tmp_path, monkeypatch):
    """Read the committed results, write to a folder of the test's own."""
    monkeypatch.setattr(paths, "RESULTS", committed / "results")
    monkeypatch.setattr(paths, "TABLES", tmp_path / "tables")
    monkeypatch.setattr(paths, "FIGURES", tmp_path / "figures")


@pytest.mark.parametrize("item", list(tables.TABLES))
def test_tables_are_rebuilt_from_results_to_the_byte(committed, item):
    for path in tables.save_table(tables.build_table(item, MODELS), item):
        assert path.read_bytes() == (committed / "tables" / path.name).read_bytes(), path.name


@pytest.mark.parametrize("item", ["figure1", "figure2", "figure3", "figure9", "figure10"])
def test_figures_are_rebuilt_from_results(committed, item):
    for path in figures.save_figures(item, MODELS):
        tracked = committed / "figures" / path.name
        assert tracked.is_file(), path.name
        if path.suffix == ".csv":
            assert path.read_bytes() == tracked.read_bytes(), path.name
        if path.suffix == ".png":
            # Other builds of the same library may draw an edge a little differently.
            assert numpy.abs(image.imread(path) - image.imread(tracked)).mean() < 0.01, path.name


def test_every_model_has_every_result(committed):
    for slug in MODELS:
        assert {path.stem for path in (committed / "results" / slug).glob("*.csv")} >= RESULTS
