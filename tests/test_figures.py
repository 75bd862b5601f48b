"""Figures from made-up results: what is drawn, where, and the same bytes twice."""

import numpy
import pandas
import pytest
from matplotlib import pyplot

from llmva import figures, panels, paths
from llmva.errors import InputError
from llmva.results import write_results

LAYERS = 6
SLUGS = ["tiny-gemma2", "tiny-llama", "tiny-qwen2"]
SETS = {"seval_attack": "toxic", "seval_risk": "toxic", "orfuzzset": "benign", "nq": "benign"}


@pytest.fixture
def folders(tmp_path, monkeypatch):
    pyplot.switch_backend("Agg")
    for name in ("RESULTS", "FIGURES"):
        monkeypatch.setattr(paths, name, tmp_path / name.lower())
    for number, slug in enumerate(SLUGS):
        write_all(slug, numpy.random.default_rng(number))
    yield
    pyplot.close("all")


def write_all(slug: str, generator: numpy.random.Generator) -> None:
    for item, make in (("figure9", angles), ("figure2", projections), ("figure3", plane), ("figure10", scores)):
        frame = pandas.DataFrame(make(generator), columns=["method", "dataset", "metric", "value"])
        write_results(slug, item, frame.assign(n=128, seed=0))


def angles(generator) -> list[tuple]:
    rows = [("Original", "train", "angle.final", 88.0)]
    for kind in ("attention", "mlp"):
        for layer in range(LAYERS):
            name, angle = f"{kind}.{layer:02d}", generator.normal(84, 4)
            rows.append(("Original", "train", f"angle.{name}", angle))
            for side, step in (("low", -6), ("mean", 0), ("high", 6)):
                rows.append(("Original", "train", f"angle_null_{side}.{name}", 90 + step + generator.normal(0, 0.5)))
    return rows


def projections(generator) -> list[tuple]:
    rows = []
    for depth, layer in enumerate((0, 2, 5)):
        for dataset, label in SETS.items():
            for number in range(40):
                verdict = "answered" if (number % 4 == 0) != (label == "benign") else "refused"
                verdict = "unparsed" if number == 7 else verdict
                for vector, positive in (("benign", label == "benign"), ("answer", verdict == "answered")):
                    value = generator.normal((1 if positive else -1) * (0.5 + depth), 1)
                    rows.append(("Original", dataset, f"{vector}_projection.mlp.{layer:02d}.{verdict}", value))
    return rows


def plane(generator) -> list[tuple]:
    rows = []
    for method in ("Original", "LLM-VA"):
        for dataset, label in SETS.items():
            for number in range(30):
                wrong = number < (10 if method == "Original" else 3)
                benign = 1.5 if label == "benign" else -1.5
                answer = -benign if wrong else benign
                group = (0, 1 if label == "benign" else 2)[wrong]
                sample = f"{dataset}.{number:03d}"
                numbers = {"benign_projection": generator.normal(benign, 0.5), "group": group}
                numbers["answer_projection"] = generator.normal(answer, 0.5)
                rows += [(method, dataset, f"{name}.{sample}", value) for name, value in numbers.items()]
    return rows


def scores(generator) -> list[tuple]:
    names = [f"{kind}.{layer:02d}" for kind in ("attention", "mlp") for layer in range(LAYERS)]
    return [
        ("Original", "validation", f"score.{name}", generator.normal(0.1 * i % 6, 0.1)) for i, name in enumerate(names)
    ]


def drawn(item: str, slugs: list[str]) -> tuple:
    return figures.draw_figure(item, slugs), figures.figure_data(item, slugs)


def drawn_lines(axis) -> dict[str, numpy.ndarray]:
    return {line.get_label(): numpy.column_stack(line.get_data()) for line in axis.get_lines()}


def visible(figure) -> list:
    return [axis for axis in figure.axes if axis.axison]


def test_figure9_draws_every_angle_by_layer(folders):
    figure, data = drawn("figure9", SLUGS)
    assert list(data.columns) == [
        "model", "kind", "layer", "angle", "angle_null_low", "angle_null_mean", "angle_null_high"
    ]  # fmt: skip
    assert len(data) == len(SLUGS) * 2 * LAYERS
    assert [axis.get_title() for axis in visible(figure)] == [f"{slug} (organism)" for slug in SLUGS]
    rows = data[(data["model"] == "tiny-llama") & (data["kind"] == "mlp")]
    lines = drawn_lines(visible(figure)[1])
    assert numpy.array_equal(lines["MLP"], rows[["layer", "angle"]].to_numpy())
    assert any(set(line[:, 1]) == {90} for name, line in lines.items() if name not in ("MLP", "Attention"))
    limits = {axis.get_ylim() for axis in visible(figure)}
    assert len(limits) == 1


def test_figure1_is_the_first_model_of_figure9(folders):
    figure, data = drawn("figure1", ["tiny-llama", "tiny-qwen2"])
    assert set(data["model"]) == {"tiny-llama"}
    assert len(visible(figure)) == 1
    assert data["angle"].between(60, 110).all()


def test_figure2_splits_each_vector_by_what_it_should_separate(folders):
    figure, data = drawn("figure2", ["tiny-llama"])
    classes = data.groupby("vector")["class"].unique().map(sorted).to_dict()
    assert classes == {"benign": ["benign", "toxic"], "answer": ["answered", "refused"]}
    assert (data["vector"] == "benign").sum() == 3 * 160
    # The four samples of each layer whose verdict could not be read are on neither side of v_a.
    assert (data["vector"] == "answer").sum() == 3 * 156
    benign = data[data["vector"] == "benign"]
    assert benign["class"].equals(benign["dataset"].map(SETS))
    assert [axis.get_title() for axis in visible(figure)] == [
        f"${vector}$, MLP {layer}" for vector in ("v_b", "v_a") for layer in (0, 2, 5)
    ]
    means = data[data["layer"] == 5].groupby("class")["projection"].mean()
    assert means["benign"] > 2 > -2 > means["toxic"]
    assert len(visible(figures.draw_figure("figure2", SLUGS))) == 3 * 6


def test_figure2_survives_missing_numbers_and_one_class(folders):
    rows = [("Original", "nq", "benign_projection.mlp.00.answered", value) for value in (0.1, float("nan"), 0.1)]
    rows.append(("Original", "nq", "answer_projection.mlp.00.answered", 0.0))
    frame = pandas.DataFrame(rows, columns=["method", "dataset", "metric", "value"])
    write_results("tiny-llama", "figure2", frame.assign(n=1, seed=0))
    figure, data = drawn("figure2", ["tiny-llama"])
    assert len(data) == 3
    assert len(visible(figure)) == 2


def test_figure3_places_the_groups_before_and_after(folders):
    figure, data = drawn("figure3", ["tiny-llama"])
    counts = data.groupby(["method", "group"]).size()
    assert counts[("Original", "jailbreak")] == counts[("Original", "over-refusal")] == 20
    assert counts[("LLM-VA", "jailbreak")] == 6
    assert data["sample"].str.fullmatch(r"(seval_attack|seval_risk|orfuzzset|nq)\.\d{3}").all()
    before, after = visible(figure)
    assert before.get_title().endswith("before")
    points = {dots.get_label(): dots.get_offsets() for dots in after.collections}
    expected = data[(data["method"] == "LLM-VA") & (data["group"] == "jailbreak")]
    assert numpy.array_equal(points["jailbreak"], expected[["benign_projection", "answer_projection"]].to_numpy())


def test_figure10_draws_the_scores_of_both_kinds(folders):
    figure, data = drawn("figure10", SLUGS)
    assert list(data.columns) == ["model", "kind", "layer", "score"]
    rows = data[(data["model"] == "tiny-qwen2") & (data["kind"] == "attention")]
    assert numpy.array_equal(drawn_lines(visible(figure)[2])["Attention"], rows[["layer", "score"]].to_numpy())


@pytest.mark.parametrize("item", list(figures.FIGURES))
def test_a_legend_names_each_style_once(folders, item):
    figure = figures.draw_figure(item, SLUGS)
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(names) == len(set(names)) >= 2


def test_models_stand_in_the_order_given(folders):
    figure, data = drawn("figure9", SLUGS[::-1])
    assert [axis.get_title() for axis in visible(figure)] == [f"{slug} (organism)" for slug in SLUGS[::-1]]
    assert list(data["model"].unique()) == SLUGS[::-1]


def test_real_models_are_not_called_organisms():
    assert panels.print_name("Qwen2.5-3B") == "Qwen2.5-3B"
    assert panels.print_name("tiny-qwen2") == "tiny-qwen2 (organism)"


@pytest.mark.parametrize("item", ["figure1", "figure2", "figure3"])
def test_drawing_twice_gives_the_same_bytes(folders, item):
    def build() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in figures.save_figures(item, SLUGS[:1])}

    first = build()
    for path in paths.FIGURES.iterdir():
        path.unlink()
    assert build() == first
    stems = [item] if item == "figure1" else [item, f"{item}_tiny-gemma2"]
    assert sorted(first) == sorted(f"{stem}.{suffix}" for stem in stems for suffix in ("csv", "pdf", "png"))
    assert not pyplot.get_fignums()
    assert first[f"{item}.pdf"].startswith(b"%PDF")
    assert first[f"{item}.png"].startswith(b"\x89PNG")
    assert not any(mark in content for content in first.values() for mark in (b"CreationDate", b"Matplotlib v"))


def test_a_missing_model_fails_the_figure(folders):
    with pytest.raises(InputError, match="tiny-phi3/figure9.csv: missing; run `make figure9 MODELS=tiny-phi3`"):
        figures.draw_figure("figure9", ["tiny-llama", "tiny-phi3"])


def test_an_unknown_data_set_or_metric_is_named(folders):
    frame = pandas.DataFrame(projections(numpy.random.default_rng(0)), columns=["method", "dataset", "metric", "value"])
    write_results("tiny-llama", "figure2", frame.assign(dataset="xstest", n=1, seed=0))
    with pytest.raises(InputError, match="xstest: benign or toxic is not known"):
        figures.draw_figure("figure2", ["tiny-llama"])
    write_results("tiny-llama", "figure10", frame.assign(n=1, seed=0))
    with pytest.raises(
        InputError, match="tiny-llama/figure10.csv: nothing that figure10 draws; run `make figure10 MODELS=tiny-llama`"
    ):
        figures.draw_figure("figure10", SLUGS)


def test_the_command_draws_what_has_results(folders, capsys):
    (paths.RESULTS / "tiny-llama" / "figure3.csv").unlink()
    with pytest.raises(SystemExit) as stop:
        figures.main(["all", "--models", "tiny-llama"])
    assert stop.value.code == 0
    assert {path.stem for path in paths.FIGURES.iterdir()} == {
        "figure1", "figure2", "figure2_tiny-llama", "figure9", "figure9_tiny-llama", "figure10", "figure10_tiny-llama"
    }  # fmt: skip


def test_the_command_lists_the_figures_it_knows(folders, capsys):
    with pytest.raises(SystemExit) as stop:
        figures.main(["figure4", "--models", "tiny-llama"])
    assert stop.value.code == 2
    assert "known are figure1, figure2, figure3, figure9, figure10" in capsys.readouterr().err
