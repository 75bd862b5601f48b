"""What is committed hangs together: tables and figures are exactly what results/ gives."""

import numpy
import pytest
from matplotlib import image

from llmva import figures, paths, tables
from llmva.params import known_slugs
from llmva.results import is_organism

TRACKED_TABLES, TRACKED_FIGURES = paths.ROOT / "tables", paths.ROOT / "figures"
MODELS = ["tiny-llama", *(slug for slug in known_slugs() if is_organism(slug) and slug != "tiny-llama")]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Read the tracked results, write to a folder of the test's own."""
    monkeypatch.setattr(paths, "RESULTS", paths.ROOT / "results")
    monkeypatch.setattr(paths, "TABLES", tmp_path / "tables")
    monkeypatch.setattr(paths, "FIGURES", tmp_path / "figures")


@pytest.mark.parametrize("item", list(tables.TABLES))
def test_tables_are_rebuilt_from_results_to_the_byte(item):
    for path in tables.save_table(tables.build_table(item, MODELS), item):
        assert path.read_bytes() == (TRACKED_TABLES / path.name).read_bytes(), path.name


@pytest.mark.parametrize("item", ["figure1", "figure2", "figure3", "figure9", "figure10"])
def test_figures_are_rebuilt_from_results(item):
    for path in figures.save_figures(item, MODELS):
        tracked = TRACKED_FIGURES / path.name
        if path.suffix == ".csv":
            assert path.read_bytes() == tracked.read_bytes(), path.name
        if path.suffix == ".png":
            # Other builds of the same library may draw an edge a little differently.
            difference = numpy.abs(image.imread(path) - image.imread(tracked))
            assert difference.mean() < 0.01, path.name
        assert tracked.is_file()


def test_every_model_has_every_result():
    for slug in MODELS:
        found = {path.stem for path in (paths.RESULTS / slug).glob("*.csv")}
        assert found >= {
            "prompts",
            "figure2",
            "figure3",
            "figure9",
            "figure10",
            "table2",
            "table3",
            "utility",
            "history",
        }
