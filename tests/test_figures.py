"""Figures from made-up results: what is drawn, where, and the same bytes twice."""

import shutil

import numpy
import pandas
import pytest
from matplotlib import pyplot

from llmva.core import paths
from llmva.core.errors import InputError
from llmva.core.params import known_slugs, load_params
from llmva.core.results import is_organism, read_results, write_results
from llmva.method import loop as alignment
from llmva.paper import figures
from llmva.paper.figures import ablation_panels, comparison, panels, tidying

LAYERS = 6
SLUGS = ["tiny-gemma2", "tiny-llama", "tiny-qwen2"]
ITERATIONS, BEST = 12, 7
TASKS = ("cola", "mnli", "rte", "mrpc", "sst", "gsm")
RANDOM = {"low": -10, "high": 10}
# The share of the original's utility that each method keeps, from lowest to highest.
KEPT = {
    "LLM-VA-R": (0.93, 1.02),
    "LLM-VA (guarded)": (0.9, 1.0),
    "LLM-VA": (0.8, 1.01),
    "LLM-VA (released code)": (0.7, 1.0),
    "Fine-tuning": (0.6, 0.9),
    "CAST": (0.85, 1.0),
    "SCANS": (0.6, 1.0),
    "AlphaSteer+": (0.9, 1.05),
    "AlphaSteer+ (all toxic)": (0.0, 0.1),
    "AlphaSteer": (0.9, 1.0),
    "VectorSteer": (0.5, 0.9),
    "VectorSteer (prefill)": (0.0, 0.1),
    "Refusal ablation": (0.95, 1.0),
    "Refuse everything": (0.0, 0.0),
    "Answer everything": (0.0, 0.0),
    "Original": (1.0, 1.0),
}
ORDER = (
    "Original", "Answer everything", "Refuse everything", "Refusal ablation", "VectorSteer", "AlphaSteer",
    "AlphaSteer+", "SCANS", "CAST", "Fine-tuning", "LLM-VA (released code)", "LLM-VA", "LLM-VA (guarded)", "LLM-VA-R",
)  # fmt: skip
SETS = {"seval_attack": "toxic", "seval_risk": "toxic", "orfuzzset": "benign", "nq": "benign"}


@pytest.fixture(scope="module")
def made_up(tmp_path_factory):
    """The folder of made-up results, written once."""
    folder = tmp_path_factory.mktemp("made_up")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "RESULTS", folder)
        for number, slug in enumerate(SLUGS):
            write_all(slug, numpy.random.default_rng(number))
    return folder


@pytest.fixture
def folders(made_up, tmp_path, monkeypatch):
    pyplot.switch_backend("Agg")
    for name in ("RESULTS", "FIGURES"):
        monkeypatch.setattr(paths, name, tmp_path / name.lower())
    shutil.copytree(made_up, paths.RESULTS)
    yield
    pyplot.close("all")


def write_all(slug: str, generator: numpy.random.Generator) -> None:
    for item, make in ITEMS.items():
        write(slug, item, make(generator))


def write(slug: str, item: str, rows: list[tuple]) -> None:
    frame = pandas.DataFrame(rows, columns=["method", "dataset", "metric", "value"])
    write_results(slug, item, frame.assign(n=128, seed=0))


def change(slug: str, item: str, edit) -> None:
    """Rewrite an item's results as `edit` has them."""
    write_results(slug, item, edit(read_results(item, [slug])))


def angles(generator) -> list[tuple]:
    rows = [("Original", "train", "angle.final", 88.0)]
    for kind in ("attention", "mlp"):
        for layer in range(LAYERS):
            name, angle = f"{kind}.{layer:02d}", generator.normal(84, 4)
            rows.append(("Original", "train", f"angle.{name}", angle))
            for side, step in (("low", -6), ("mean", 0), ("high", 6)):
                rows.append(("Original", "train", f"angle_null_{side}.{name}", 90 + step + generator.normal(0, 0.5)))
            rows += [("Original", "train", f"angle_random_{side}.{name}", 90 + step) for side, step in RANDOM.items()]
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


def utility(generator) -> list[tuple]:
    rows = []
    for method, (low, high) in KEPT.items():
        for task in TASKS:
            metric, whole = ("accuracy", 0.8) if task == "gsm" else ("f1", 0.9)
            value = whole * (1 if method == "Original" else generator.uniform(low, high))
            rows += [(method, task, metric, value), (method, task, "kept", -1.0)]
            rows += [(method, task, "accuracy", 0.123)] * (metric == "f1")
    return rows


def distortion(generator) -> list[tuple]:
    rows = [("LLM-VA", "validation", f"original_{name}", value) for name, value in (("f1", 0.6), ("strict_f1", 0.58))]
    for degrees in range(0, 91, 10):
        for draw in range(3):
            value = 0.93 - 0.4 * (degrees / 90) ** 2 + generator.normal(0, 0.03)
            for name, drop in (("f1", 0), ("strict_f1", 0.06)):
                rows.append(("LLM-VA", "validation", f"{name}.{degrees:03d}.{draw}", value - drop))
    return rows


def iterations(generator, length=ITERATIONS) -> list[tuple]:
    rows = [("LLM-VA", "validation", "best_iteration", BEST)]
    for number in range(length):
        progress, noise = 1 - numpy.exp(-number / 3), generator.normal(0, 0.02)
        values = {"f1": 0.6 + 0.35 * progress, "strict_f1": 0.6 + 0.3 * progress, "asr": 0.5 - 0.4 * progress}
        values |= {"orr": 0.4 - 0.3 * progress, "degenerate": 0.1 * progress, "mean_angle": 88 - 60 * progress}
        values |= {"mean_scale": 1 + progress, "mean_accuracy_answer": 0.8 + 0.1 * progress, "divergence": progress}
        rows += [("LLM-VA", "validation", f"{name}.{number:03d}", value + noise) for name, value in values.items()]
    return rows


def selections(generator) -> list[tuple]:
    rows = [("LLM-VA", "validation", "chosen", 8)]
    for count in (4, 6, 8, 10, 12):
        names = {"f1": 0.9, "strict_f1": 0.85, "kept": 0.97, "kept_gsm": 0.7}
        rows += [
            ("LLM-VA", "validation", f"{name}.{count}", value - 0.01 * (count - 8) ** 2 + generator.normal(0, 0.02))
            for name, value in names.items()
        ]
    return rows


def judges(generator) -> list[tuple]:
    rows = []
    for method, floor in (("one judge", 0.05), ("combined judges", 0.7)):
        for number in range(ITERATIONS):
            fall = numpy.exp(-number / 3)
            values = {"seval_attack_asr": 0.8 * fall, "seval_risk_asr": 0.4 * fall, "nq_orr": 0.1 + 0.3 * floor}
            values |= {"orfuzzset_orr": floor + 0.2 * fall, "strict_f1": 0.9 - 0.4 * floor}
            rows += [
                (method, "validation", f"{name}.{number:03d}", value + generator.normal(0, 0.02))
                for name, value in values.items()
            ]
    return rows


def ridge(generator) -> list[tuple]:
    rows = []
    for place, method in enumerate(("LLM-VA", "soft SVM", "ridge edit", "LLM-VA-R")):
        for number in range(ITERATIONS):
            value = 0.6 + (0.2 + 0.04 * place) * (1 - numpy.exp(-number / (4 - place))) + generator.normal(0, 0.03)
            rows.append((method, "validation", f"strict_f1.{number:03d}", value))
        finals = {"test_strict_f1": 0.85, "transfer_strict_f1": 0.78, "kept": 0.9, "kept_gsm": 0.6}
        rows += [
            (method, "test", name, value + 0.03 * place + generator.normal(0, 0.03)) for name, value in finals.items()
        ]
    return rows


ITEMS = {
    "figure9": angles,
    "figure2": projections,
    "figure3": plane,
    "figure10": scores,
    "utility": utility,
    "figure6": distortion,
    "figure12": iterations,
    "figure8": selections,
    "figure11": judges,
    "ridge": ridge,
}


def drawn(item: str, slugs: list[str]) -> tuple:
    return figures.draw_figure(item, slugs), figures.figure_data(item, slugs)


def drawn_lines(axis) -> dict[str, numpy.ndarray]:
    return {line.get_label(): numpy.column_stack(line.get_data()) for line in axis.get_lines()}


def bars_by_place(axis) -> list:
    return sorted(axis.patches, key=lambda bar: bar.get_y())


def visible(figure) -> list:
    return [axis for axis in figure.axes if axis.axison]


# What is drawn is what the results say


def test_figure9_draws_every_angle_by_layer(folders):
    figure, data = drawn("figure9", SLUGS)
    assert list(data.columns) == [
        "model", "kind", "layer", "angle", "angle_null_low", "angle_null_mean", "angle_null_high",
        "angle_random_low", "angle_random_high", "outside", "runs", "seeds"
    ]  # fmt: skip
    assert len(data) == len(SLUGS) * 2 * LAYERS
    places = [(slug, kind) for slug in SLUGS for kind in ("Attention", "MLP")]
    for axis, (slug, kind) in zip(visible(figure), places, strict=True):
        rows = data[(data["model"] == slug) & (data["kind"] == kind.lower())]
        outside = (rows["angle"] < rows["angle_null_low"]) | (rows["angle"] > rows["angle_null_high"])
        assert axis.get_title() == f"{slug} (organism)\n{kind}: {outside.sum()} of {len(rows)} outside"
    rows = data[(data["model"] == "tiny-llama") & (data["kind"] == "mlp")]
    axis = visible(figure)[3]
    lines = drawn_lines(axis)
    assert numpy.array_equal(lines["MLP"], rows[["layer", "angle"]].to_numpy())
    assert "Single runs" not in lines
    assert any(set(line[:, 1]) == {90} for name, line in lines.items() if name != "MLP")
    random = [line.get_ydata() for line in axis.get_lines() if line.get_label().endswith("random directions")]
    assert {value for line in random for value in line} == {80, 100}
    limits = {axis.get_ylim() for axis in visible(figure)}
    assert len(limits) == 1


def test_figure9_draws_the_single_runs_that_a_mean_is_made_of(folders):
    for seed in (1, 2):
        write(f"tiny-llama-s{seed}", "figure9", angles(numpy.random.default_rng(seed + 50)))
    slugs = ["tiny-llama", "tiny-llama-s1", "tiny-llama-s2", "tiny-qwen2"]
    figure, data = drawn("figure9", slugs)
    dots = [line.get_ydata() for line in visible(figure)[0].get_lines() if line.get_label() == "Single runs"]
    for number, (slug, drawn_ones) in enumerate(zip(slugs, dots, strict=False), start=1):
        results = read_results("figure9", [slug]).set_index("metric")["value"]
        assert list(drawn_ones) == [results[f"angle.attention.{layer:02d}"] for layer in range(LAYERS)]
        rows = data[(data["model"] == "tiny-llama") & (data["kind"] == "attention")]
        assert list(rows[f"angle_run_{number}"]) == list(drawn_ones)
    assert len(dots) == 3
    alone = data[data["model"] == "tiny-qwen2"]
    assert alone["angle_run_1"].equals(alone["angle"]) and alone["angle_run_2"].isna().all()


def test_the_chance_of_lying_outside_is_that_of_one_more_permutation():
    draws = numpy.random.default_rng(0).random((20_000, panels.PERMUTATIONS + 1))
    low, high = numpy.quantile(draws[:, 1:], [0.025, 0.975], axis=1)
    share = ((draws[:, 0] < low) | (draws[:, 0] > high)).mean()
    assert panels.chance_outside() == pytest.approx(0.0873, abs=5e-5)
    assert panels.chance_outside() == pytest.approx(share, abs=0.005)


def test_labels_say_what_the_parameters_do():
    for slug in known_slugs():
        params = load_params(slug)
        assert params.null_draws == panels.PERMUTATIONS
        assert params.probe.iterations == ablation_panels.ITERATIONS
        if is_organism(slug):
            assert "8 and 12" in comparison.SELECTION_NOTE and params.probe.l_select == [8, 12]


def test_figure1_is_the_first_model_of_figure9(folders):
    figure, data = drawn("figure1", ["tiny-llama", "tiny-qwen2"])
    assert set(data["model"]) == {"tiny-llama"}
    assert len(visible(figure)) == 2
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
    assert list(data.columns) == ["model", "kind", "layer", "score", "seeds"]
    rows = data[(data["model"] == "tiny-qwen2") & (data["kind"] == "attention")]
    assert numpy.array_equal(drawn_lines(visible(figure)[2])["Attention"], rows[["layer", "score"]].to_numpy())


def test_figure4_needs_no_results_and_every_arrow_joins_two_boxes():
    data = figures.figure_data("figure4")
    boxes, arrows = (data[data["kind"] == kind] for kind in ("box", "arrow"))
    assert {*arrows["from"], *arrows["to"]} == set(boxes["name"])
    assert ("Edited model", "Model responds") in set(arrows[["from", "to"]].itertuples(index=False, name=None))
    figure = figures.draw_figure("figure4")
    shown = " ".join(text.get_text() for text in figure.axes[0].texts).replace("\n", " ").replace("$", "")
    assert all(name in shown for name in data["name"])
    pyplot.close(figure)


def test_figure5_draws_shares_of_the_original(folders):
    figure, data = drawn("figure5", SLUGS)
    assert list(data.columns) == ["model", "method", "task", "metric", "kept", "seeds"]
    assert list(data["method"].unique()) == [name for name in ORDER if name in KEPT]
    assert data.groupby("task")["metric"].first().to_dict() == {**dict.fromkeys(TASKS, "f1"), "gsm": "accuracy"}
    results = read_results("utility", ["tiny-qwen2"])
    results = results[results["metric"] == "f1"].set_index(["method", "dataset"])["value"]
    kept = data.set_index(["model", "method", "task"])["kept"]
    assert kept["tiny-qwen2", "LLM-VA", "rte"] == results["LLM-VA", "rte"] / results["Original", "rte"]
    left, right = figure.axes
    widths = {
        name.get_text(): bar.get_width() for name, bar in zip(left.get_yticklabels(), bars_by_place(left), strict=True)
    }
    assert widths["Original"] == pytest.approx(100)
    assert widths["Refuse everything"] == 0
    assert widths["LLM-VA"] == pytest.approx(100 * kept.xs("LLM-VA", level="method").mean())
    cells = [text.get_text() for text in right.texts]
    expected = 100 * kept.xs("LLM-VA", level="method").unstack().loc[SLUGS, list(TASKS)]
    assert cells == [f"{value:.0f}" for row in expected.to_numpy() for value in (*row, row.mean())]


def test_figure5_shows_the_worst_and_best_run(folders):
    for seed in (1, 2):
        write(f"tiny-llama-s{seed}", "utility", utility(numpy.random.default_rng(seed + 50)))
    slugs = ["tiny-llama", "tiny-llama-s1", "tiny-llama-s2", "tiny-qwen2"]
    single = {slug: figures.figure_data("figure5", [slug]) for slug in slugs}
    for shown in (slugs, slugs[:3]):
        figure, data = drawn("figure5", shown)
        assert [name for name in data if name.startswith("kept_run")] == [f"kept_run_{number}" for number in (1, 2, 3)]
        (lines,) = figure.axes[0].collections
        assert lines.get_label() == "Range over runs"
        for method, segment in zip(data["method"].unique(), lines.get_segments(), strict=True):
            runs = [100 * single[slug].groupby("method")["kept"].mean()[method] for slug in shown]
            assert segment[:, 0] == pytest.approx([min(runs), max(runs)])
    assert figures.draw_figure("figure5", slugs[:1]).axes[0].collections[0].get_label() == "Range over tasks"


def test_figure5_leaves_a_gap_where_the_original_cannot_do_a_task(folders):
    def fail(frame):
        return frame.assign(value=frame["value"].where(frame["dataset"] != "gsm", 0.0))

    change("tiny-llama", "utility", fail)
    figure, data = drawn("figure5", ["tiny-llama"])
    assert data.loc[data["task"] == "gsm", "kept"].isna().all()
    assert data.loc[data["task"] != "gsm", "kept"].notna().all()
    assert "–" in [text.get_text() for text in figure.axes[1].texts]


def test_figure6_draws_the_mean_of_the_draws_and_their_range(folders):
    figure, data = drawn("figure6", ["tiny-llama"])
    results = read_results("figure6", ["tiny-llama"]).set_index("metric")["value"]
    draws = [results[f"strict_f1.040.{number}"] for number in range(3)]
    row = data[data["degrees"] == 40].iloc[0]
    assert row["strict_f1"] == pytest.approx(numpy.mean(draws))
    assert (row["strict_f1_low"], row["strict_f1_high"]) == (min(draws), max(draws))
    lines = drawn_lines(figure.axes[0])
    assert numpy.array_equal(lines["F1"], data[["degrees", "f1"]].to_numpy())
    originals = [line.get_ydata()[0] for line in figure.axes[0].get_lines() if line.get_label() == "Original"]
    assert originals == [0.58, 0.6]
    assert figure.axes[0].get_ylim()[0] == 0

    def agree(frame):
        return frame.assign(value=frame["value"].where(frame["metric"] != "original_strict_f1", 0.6))

    change("tiny-llama", "figure6", agree)
    lines = figures.draw_figure("figure6", ["tiny-llama"]).axes[0].get_lines()
    assert [line.get_label() for line in lines].count("Original") == 1


def test_figure12_draws_scores_and_rates_and_marks_the_choice(folders):
    figure, data = drawn("figure12", SLUGS)
    assert list(data.columns) == [
        "model", "iteration", "strict_f1", "f1", "asr", "orr", "degenerate", "stopped", "best_iteration", "seeds"
    ]  # fmt: skip
    rows = data[data["model"] == SLUGS[1]]
    upper, lower = figure.axes[2:4]
    assert upper.get_title() == f"{SLUGS[1]} (organism)"
    assert numpy.array_equal(drawn_lines(upper)["Strict F1"], rows[["iteration", "strict_f1"]].to_numpy())
    assert numpy.array_equal(drawn_lines(lower)["ORR"][:, 1], 100 * rows["orr"].to_numpy())
    assert set(drawn_lines(lower)["Chosen iteration"][:, 0]) == {BEST}
    (mark,) = [line for line in upper.get_lines() if line.get_marker() == "o"]
    assert mark.get_ydata() == rows.loc[rows["iteration"] == BEST, "strict_f1"].to_numpy()


def test_figure12_marks_where_a_run_stopped(folders):
    def fall(frame):
        place = frame["metric"].str.extract(r"\.(\d+)$")[0].astype(float)
        frame = frame[~(place > 4)]
        return frame.assign(value=frame["value"].where(frame["metric"] != "strict_f1.004", 0.02))

    change("tiny-llama", "figure12", fall)
    figure, data = drawn("figure12", SLUGS)
    assert data.loc[data["stopped"] > 0, ["model", "iteration"]].to_numpy().tolist() == [["tiny-llama", 4]]
    marks = [drawn_lines(axis).get("Run stopped") for axis in figure.axes]
    assert [mark is not None for mark in marks] == [False, False, True, True, False, False]
    assert marks[2].tolist() == [[4, 0.02]]
    figure, data = drawn("figure12_health", ["tiny-llama"])
    last = data["divergence"].iloc[-1]
    assert drawn_lines(figure.axes[3])["Run stopped"].tolist() == [[4, last]]


def test_a_run_that_ends_before_its_seeds_was_stopped(folders):
    write("tiny-llama-s1", "figure12", iterations(numpy.random.default_rng(5), length=5))
    data = figures.figure_data("figure12", ["tiny-llama", "tiny-llama-s1"])
    assert data.loc[data["stopped"] > 0, "iteration"].tolist() == [4]
    assert data["iteration"].max() == ITERATIONS - 1


def test_a_run_stops_where_the_loop_gives_up():
    assert tidying.LOWEST_F1 == alignment.LOWEST_F1


def test_figure7_is_the_first_three_models_of_figure12(folders):
    write_all("tiny-phi3", numpy.random.default_rng(9))
    data = figures.figure_data("figure7", [*SLUGS, "tiny-phi3"])
    assert data.equals(figures.figure_data("figure12", SLUGS))


def test_the_health_of_the_loop_is_drawn_where_it_was_logged(folders):
    figure, data = drawn("figure12_health", ["tiny-llama"])
    assert numpy.array_equal(figure.axes[2].get_lines()[0].get_ydata(), 100 * data["mean_accuracy_answer"])
    change("tiny-llama", "figure12", lambda frame: frame[~frame["metric"].str.startswith("divergence")])
    figure, data = drawn("figure12_health", ["tiny-llama"])
    assert "divergence" not in data
    assert len(visible(figure)) == 3
    change("tiny-llama", "figure12", lambda frame: frame[~frame["metric"].str.startswith("mean_")])
    with pytest.raises(InputError, match="nothing that figure12_health draws"):
        figures.draw_figure("figure12_health", ["tiny-llama"])
    assert "figure12_health" not in figures.drawing._items_with_results(["tiny-llama"])


def test_figure8_draws_a_line_for_each_model(folders):
    figure, data = drawn("figure8", SLUGS)
    assert list(data["l_select"].unique()) == [4, 6, 8, 10, 12]
    rows = data[data["model"] == "tiny-llama"]
    lines = drawn_lines(figure.axes[1])
    line, chosen = lines["tiny-llama (organism)"], lines["Chosen on validation"]
    assert numpy.array_equal(line[:, 1], 100 * rows["kept"])
    # Models stand a little apart, so that none hides another.
    assert numpy.abs(line[:, 0] - rows["l_select"]).max() < 0.5
    assert len({drawn_lines(figure.axes[1])[f"{slug} (organism)"][0, 0] for slug in SLUGS}) == len(SLUGS)
    assert set(chosen[:, 0].round()) == {8}
    assert len(chosen) == len(SLUGS)
    assert chosen[1].tolist() == line[2].tolist()


def test_figure11_sets_one_judge_beside_two(folders):
    figure, data = drawn("figure11", ["tiny-llama"])
    for axis, method in zip(figure.axes, ("one judge", "combined judges"), strict=True):
        rows = data[data["method"] == method]
        assert numpy.array_equal(drawn_lines(axis)["ORR, NQ"][:, 1], 100 * rows["nq_orr"].to_numpy())
    assert data.loc[data["method"] == "combined judges", "orfuzzset_orr"].min() > 0.5


def test_figure13_draws_means_and_every_model(folders):
    figure, data = drawn("figure13", SLUGS)
    variants = ["LLM-VA", "soft SVM", "ridge edit", "LLM-VA-R"]
    assert list(data["method"].unique()) == variants
    curves = data[data["measure"] == "strict_f1"]
    expected = curves[curves["method"] == "ridge edit"].groupby("iteration")["value"].mean()
    assert figure.axes[2].get_title() == "ridge edit"
    assert numpy.allclose(drawn_lines(figure.axes[2])["Mean over models"][:, 1], expected)
    finals = data[data["measure"] == "kept_gsm"].pivot(index="model", columns="method", values="value")[variants]
    dots = drawn_lines(figure.axes[-1])
    for slug in SLUGS:
        assert numpy.allclose(dots[f"{slug} (organism)"][:, 0], 100 * finals.loc[slug])
    assert data.loc[data["measure"] != "strict_f1", "iteration"].isna().all()


def test_figure13_shows_every_seed_as_an_organism_of_its_own(folders):
    for seed in (10, 11):
        write(f"tiny-llama-s{seed}", "ridge", ridge(numpy.random.default_rng(seed)))
    figure, data = drawn("figure13", ["tiny-llama-s10", "tiny-llama-s11", "tiny-qwen2"])
    assert data["model"].nunique() == 3
    finals = data[(data["measure"] == "kept") & data["model"].str.startswith("tiny-llama")]
    dots = drawn_lines(figure.axes[-2])["tiny-llama (organism)"]
    assert sorted(dots[:, 0]) == pytest.approx(sorted(100 * finals["value"]))


def test_figure13_has_room_for_any_number_of_variants(folders):
    def add(frame):
        others = [frame[frame["method"] == "soft SVM"].assign(method=f"lambda {number}") for number in range(7)]
        return pandas.concat([frame, *others])

    change("tiny-llama", "ridge", add)
    figure, data = drawn("figure13", ["tiny-llama"])
    assert len(visible(figure)) == 11 + 4
    assert list(data["method"].unique())[3:5] == ["LLM-VA-R", "lambda 0"]
    assert not overlaps(figure)


def test_a_curve_that_ended_early_keeps_its_last_value(folders):
    last = ITERATIONS // 2

    def stop(frame):
        number = frame["metric"].str.extract(r"^strict_f1\.(\d+)$")[0].astype(float)
        return frame[~((frame["method"] == "soft SVM") & (number > last))]

    change("tiny-llama", "ridge", stop)
    data = figures.figure_data("figure13", SLUGS)
    curve = data[(data["model"] == "tiny-llama") & (data["method"] == "soft SVM") & (data["measure"] == "strict_f1")]
    assert list(curve["iteration"]) == list(range(ITERATIONS))
    assert curve["value"].iloc[last:].nunique() == 1 < curve["value"].iloc[: last + 1].nunique()
    # Where that begins is marked.
    assert data.loc[data["stopped"] > 0, ["model", "method", "iteration"]].to_numpy().tolist() == [
        ["tiny-llama", "soft SVM", last]
    ]
    figure = figures.draw_figure("figure13", SLUGS)
    assert drawn_lines(figure.axes[1])["A run stopped"].tolist() == [[last, curve["value"].iloc[last]]]
    assert "A run stopped" not in drawn_lines(figure.axes[0])


def test_figure13_sets_scores_beside_scores_and_marks_ours(folders):
    figure, _ = drawn("figure13", SLUGS)
    strips = visible(figure)[-4:]
    assert strips[0].get_xlim() == strips[1].get_xlim() != strips[2].get_xlim() == strips[3].get_xlim()
    for axis in strips:
        values = numpy.concatenate([line.get_xdata() for line in axis.get_lines()])
        assert axis.get_xlim()[0] < values.min() and values.max() < axis.get_xlim()[1]
    bold = [label.get_text() for label in strips[0].get_yticklabels() if label.get_fontweight() == "bold"]
    assert bold == ["LLM-VA-R"] == [axis.get_title() for axis in figure.axes if axis.title.get_fontweight() == "bold"]


@pytest.mark.parametrize(("loops", "down"), [(1, 1), (7, 1), (8, 2), (13, 2), (14, 2), (15, 3)])
def test_figure13_leaves_no_row_to_one_panel(folders, loops, down):
    names = ["LLM-VA-R", *(f"variant {number}" for number in range(loops - 1))]

    def replace(frame):
        ours = frame[frame["method"] == "LLM-VA-R"]
        return pandas.concat([ours.assign(method=name) for name in names])

    change("tiny-llama", "ridge", replace)
    rows = [axis.get_subplotspec().rowspan.start for axis in visible(figures.draw_figure("figure13", ["tiny-llama"]))]
    counts = pandas.Series(rows[:loops]).value_counts()
    assert len(counts) == down
    assert counts.min() > 1 or loops == 1


# What all figures have in common


@pytest.mark.parametrize("item", [item for item in figures.FIGURES if item != "figure4"])
def test_a_legend_names_each_style_once(folders, item):
    figure = figures.draw_figure(item, SLUGS)
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(names) == len(set(names)) >= (1 if item == "figure12_health" else 2)
    assert not overlaps(figure)


def test_no_words_overlap_in_the_framework():
    figure = figures.draw_figure("figure4")
    assert not overlaps(figure)
    pyplot.close(figure)


def test_the_check_of_overlaps_sees_them():
    figure = pyplot.figure()
    figure.text(0.5, 0.5, "one upon")
    figure.text(0.52, 0.5, "another")
    assert overlaps(figure) == [("one upon", "another")]
    pyplot.close(figure)


def overlaps(figure) -> list[tuple[str, str]]:
    """Return the pairs of texts in a figure that lie on one another."""
    figure.draw_without_rendering()
    texts = [*figure.texts, *(text for part in figure.subfigs for text in part.texts)]
    for legend in figure.legends:
        texts += [legend.get_title(), *legend.get_texts()]
    for axis in figure.axes:
        texts += axis.texts
    for axis in visible(figure):
        texts += [axis.title, axis._left_title, axis.xaxis.label, axis.yaxis.label]
        for side in (axis.xaxis, axis.yaxis):
            low, high = sorted(side.get_view_interval())
            texts += [tick.label1 for tick in side.get_major_ticks() if low <= tick.get_loc() <= high]
    # The box around slanted words is larger than they are.
    texts = [text for text in texts if text.get_visible() and text.get_text() and text.get_rotation() % 90 == 0]
    boxes = [(text.get_text(), text.get_window_extent().padded(-1)) for text in texts]
    return [
        (one, other)
        for place, (one, box) in enumerate(boxes)
        for other, another in boxes[place + 1 :]
        if box.overlaps(another)
    ]


@pytest.mark.parametrize("item", ["figure4", "figure5", "figure13"])
def test_the_files_of_a_figure_are_the_same_bytes_twice(folders, item):
    def build() -> list[bytes]:
        figure, data = drawn(item, SLUGS[:1])
        return [path.read_bytes() for path in figures.save_figure(figure, item, data)]

    assert build() == build()
    table = pandas.read_csv(paths.FIGURES / f"{item}.csv", keep_default_na=item != "figure4")
    assert list(table.columns) == list(figures.figure_data(item, SLUGS[:1]).columns)


def test_models_stand_in_the_order_given(folders):
    figure, data = drawn("figure9", SLUGS[::-1])
    titles = [axis.get_title().splitlines()[0] for axis in visible(figure)[::2]]
    assert titles == [f"{slug} (organism)" for slug in SLUGS[::-1]]
    assert list(data["model"].unique()) == SLUGS[::-1]


def test_real_models_are_not_called_organisms():
    assert tidying.print_name("Qwen2.5-3B") == "Qwen2.5-3B"
    assert tidying.print_name("tiny-qwen2") == "tiny-qwen2 (organism)"


@pytest.mark.parametrize("item", ["figure1", "figure10"])
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


# Seeds, and the two worlds


def test_seeds_of_a_model_become_their_mean(folders):
    for seed in (1, 2):
        for item in ("figure9", "utility"):
            write(f"tiny-llama-s{seed}", item, ITEMS[item](numpy.random.default_rng(seed + 50)))
    slugs = figures.add_seeds("figure9", ["tiny-llama", "tiny-qwen2"], 4)
    assert slugs == ["tiny-llama", "tiny-llama-s1", "tiny-llama-s2", "tiny-qwen2"]
    for item, value in (("figure9", "angle"), ("figure5", "kept")):
        data = figures.figure_data(item, slugs)
        assert data.groupby("model")["seeds"].first().to_dict() == {"tiny-llama": 3, "tiny-qwen2": 1}
        alone = [figures.figure_data(item, [slug])[value] for slug in slugs[:3]]
        assert numpy.allclose(data.loc[data["model"] == "tiny-llama", value], numpy.mean(alone, axis=0))
    figure = figures.draw_figure("figure9", slugs)
    assert figure.axes[0].get_title().splitlines()[0] == "tiny-llama (organism, 3 seeds)"


def test_seeds_join_in_only_where_a_mean_makes_sense(folders):
    write_all("tiny-llama-s1", numpy.random.default_rng(7))
    assert figures.add_seeds("figure2", ["tiny-llama"], 3) == ["tiny-llama"]
    assert figures.add_seeds("figure10", ["tiny-llama", "Qwen3-4B"], 1) == ["tiny-llama", "Qwen3-4B"]
    assert figures.add_seeds("figure10", ["tiny-llama-s1"], 3) == ["tiny-llama-s1"]
    assert list(figures.figure_data("figure10", ["tiny-llama-s1"])["model"].unique()) == ["tiny-llama-s1"]
    data = figures.figure_data("figure3", ["tiny-llama", "tiny-llama-s1"])
    assert list(data["model"].unique()) == ["tiny-llama", "tiny-llama-s1"]


def test_one_mean_never_holds_organisms_and_real_models(folders, monkeypatch):
    write_all("Qwen3-4B", numpy.random.default_rng(7))
    with pytest.raises(InputError, match="figure13: --models: organisms and real models have no common mean"):
        figures.draw_figure("figure13", ["tiny-llama", "Qwen3-4B"])
    saved = {}
    monkeypatch.setattr(
        figures.drawing, "save_figure", lambda figure, name, data: saved.update({name: set(data["model"])}) or []
    )
    figures.save_figures("figure13", ["tiny-llama", "Qwen3-4B"])
    assert saved == {"figure13": {"Qwen3-4B"}, "figure13_organisms": {"tiny-llama"}}


# What is missing


def test_a_missing_model_fails_the_figure(folders):
    with pytest.raises(InputError, match="tiny-phi3/figure9.csv: missing; run `make figure9 MODELS=tiny-phi3`"):
        figures.draw_figure("figure9", ["tiny-llama", "tiny-phi3"])


def test_an_unknown_data_set_or_metric_is_named(folders):
    change("tiny-llama", "figure2", lambda frame: frame.assign(dataset="xstest"))
    with pytest.raises(InputError, match="xstest: benign or toxic is not known"):
        figures.draw_figure("figure2", ["tiny-llama"])
    write("tiny-llama", "figure10", projections(numpy.random.default_rng(0)))
    with pytest.raises(
        InputError,
        match=r"tiny-llama/figure10.csv: metric: none is <name>.<kind>.<layer> with name score; "
        "run `make figure10 MODELS=tiny-llama`",
    ):
        figures.draw_figure("figure10", SLUGS)


@pytest.mark.parametrize(
    ("item", "source", "pattern", "message"),
    [
        ("figure9", "figure9", r"angle_random_low\.mlp\.03", "metric: angle_random_low.mlp.03 missing"),
        ("figure9", "figure9", "angle_random_low.*", "metric: angle_random_low.attention.00 missing"),
        ("figure6", "figure6", r"f1\.040\.1", "metric: f1.040.1 missing"),
        ("figure6", "figure6", "original_f1", "metric: original_f1 missing"),
        ("figure12", "figure12", r"orr\.005", "metric: orr.005 missing"),
        ("figure7", "figure12", "best_iteration", "metric: none is <name> with name best_iteration"),
        ("figure8", "figure8", "kept_gsm.*", "metric: kept_gsm.10 missing"),
        ("figure8", "figure8", "chosen", "metric: none is <name> with name chosen"),
        ("figure11", "figure11", r"nq_orr\.002", "metric: nq_orr.002 of combined judges missing"),
        ("figure13", "ridge", "transfer_strict_f1", "metric: transfer_strict_f1 of LLM-VA missing"),
        ("figure13", "ridge", "strict_f1.*", "metric: none is <name>.<iteration> with name strict_f1"),
    ],
)
def test_a_missing_metric_is_named(folders, item, source, pattern, message):
    change("tiny-llama", source, lambda frame: frame[~frame["metric"].str.fullmatch(pattern)])
    expected = f"tiny-llama/{source}.csv: {message}; run `make {source} MODELS=tiny-llama`"
    with pytest.raises(InputError) as error:
        figures.draw_figure(item, SLUGS)
    assert str(error.value).endswith(expected)


@pytest.mark.parametrize(
    ("item", "source", "method", "message"),
    [
        ("figure5", "utility", "Original", "method: no Original"),
        ("figure5", "utility", "SCANS", "metric: SCANS of cola f1 missing"),
        ("figure11", "figure11", "one judge", "method: no one judge"),
        ("figure13", "ridge", "soft SVM", "method: no soft SVM"),
    ],
)
def test_a_missing_method_is_named(folders, item, source, method, message):
    change("tiny-llama", source, lambda frame: frame[frame["method"] != method])
    with pytest.raises(InputError, match=f"tiny-llama/{source}.csv: {message}; run"):
        figures.draw_figure(item, SLUGS)


def test_a_number_that_stands_twice_is_named(folders):
    change("tiny-llama", "figure8", lambda frame: pandas.concat([frame, frame[frame["metric"] == "kept.6"]]))
    with pytest.raises(InputError, match="tiny-llama/figure8.csv: metric: kept.6 stands twice; run"):
        figures.draw_figure("figure8", SLUGS)


# The command


def test_the_command_draws_what_has_results(folders, capsys):
    for path in (paths.RESULTS / "tiny-llama").iterdir():
        if path.stem != "figure10":
            path.unlink()
    write("tiny-llama-s1", "figure10", scores(numpy.random.default_rng(8)))
    with pytest.raises(SystemExit) as stop:
        figures.main(["all", "--models", "tiny-llama", "--seeds", "3"])
    assert stop.value.code == 0
    assert {path.stem for path in paths.FIGURES.iterdir()} == {"figure4", "figure10", "figure10_tiny-llama"}
    assert "figure10.pdf, .png, .csv of 2 studies, and 1 more figures" in capsys.readouterr().out


def test_the_command_needs_some_results(folders, capsys):
    with pytest.raises(SystemExit) as stop:
        figures.main(["all", "--models", "tiny-phi3"])
    assert stop.value.code == 2
    assert "no figure's results for tiny-phi3" in capsys.readouterr().err


def test_the_command_lists_the_figures_it_knows(folders, capsys):
    with pytest.raises(SystemExit) as stop:
        figures.main(["figure99", "--models", "tiny-llama"])
    assert stop.value.code == 2
    assert "known are figure1, figure2, figure3, figure4, figure5" in capsys.readouterr().err


def test_all_tells_which_models_a_figure_is_drawn_without(folders, capsys, monkeypatch):
    (paths.RESULTS / "tiny-qwen2" / "figure10.csv").unlink()
    with pytest.raises(SystemExit) as stop:
        figures.main(["figure10", "--models", *SLUGS])
    assert stop.value.code == 2
    # What is drawn is tested elsewhere, and all figures at once take minutes.
    monkeypatch.setattr(figures.drawing, "save_figures", lambda item, slugs: [paths.FIGURES / f"{item}.pdf"])
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    with pytest.raises(SystemExit) as stop:
        figures.main(["all", "--models", *SLUGS])
    assert stop.value.code == 0
    assert "figure10: without tiny-qwen2, which have no results of it yet" in capsys.readouterr().out
