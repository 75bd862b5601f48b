"""Figures from made-up results: what is drawn, where, and the same bytes twice."""

import shutil

import numpy
import pandas
import pytest
from matplotlib import pyplot
from matplotlib.colors import to_hex

from llmva.core import paths
from llmva.core.errors import InputError
from llmva.core.params import known_slugs, load_params
from llmva.core.results import KEY_COLUMNS, is_organism, read_results, write_results
from llmva.core.vocabulary import SAFETY_SETS
from llmva.paper.figures import drawing, style
from llmva.paper.figures.catalogue import FIGURES
from llmva.paper.figures.items import angles as angles_item
from llmva.paper.figures.items import distortion as distortion_item
from llmva.paper.figures.items import l_select, llm_va_r

LAYERS = 6
SLUGS = ["tiny-gemma2", "tiny-llama", "tiny-qwen2"]
ITERATIONS, BEST = 12, 7
TASKS = ("cola", "mnli", "rte", "mrpc", "sst", "gsm")
RANDOM = {"low": -10, "high": 10}
HEALTH = {"mean_angle": 1, "mean_scale": 1, "mean_accuracy_answer": 100, "divergence": 1}
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
    """Write rows of method, dataset, metric, value, and a dictionary of keys where an item has some."""
    frame = pandas.DataFrame([row[:4] for row in rows], columns=["method", "dataset", "metric", "value"])
    keys = pandas.DataFrame([row[4] if len(row) > 4 else {} for row in rows], index=frame.index)
    types = {key: KEY_COLUMNS[key] for key in keys if KEY_COLUMNS[key] == "Int64"}
    write_results(slug, item, frame.assign(n=128, seed=0).join(keys.astype(types)))


def change(slug: str, item: str, edit) -> None:
    """Rewrite an item's results as `edit` has them."""
    write_results(slug, item, edit(read_results(item, [slug])))


def angles(generator) -> list[tuple]:
    rows = []
    for kind in ("attention", "mlp"):
        for layer in range(LAYERS):
            values = {"angle": generator.normal(84, 4)}
            for side, step in (("low", -6), ("mean", 0), ("high", 6)):
                values[f"angle_null_{side}"] = 90 + step + generator.normal(0, 0.5)
            values |= {f"angle_random_{side}": 90 + step for side, step in RANDOM.items()}
            key = {"sublayer": f"{kind}.{layer:02d}"}
            rows += [("Original", "train", metric, value, key) for metric, value in values.items()]
    return rows


def projections(generator) -> list[tuple]:
    rows = []
    for depth, layer in enumerate((0, 2, 5)):
        for dataset, label in SAFETY_SETS.items():
            for number in range(40):
                verdict = "answered" if (number % 4 == 0) != (label == "benign") else "refused"
                verdict = "unparsed" if number == 7 else verdict
                key = {"sublayer": f"mlp.{layer:02d}", "verdict": verdict}
                for vector, positive in (("benign", label == "benign"), ("answer", verdict == "answered")):
                    value = generator.normal((1 if positive else -1) * (0.5 + depth), 1)
                    rows.append(("Original", dataset, f"{vector}_projection", value, key))
    return rows


def plane(generator) -> list[tuple]:
    rows = []
    for method in ("Original", "LLM-VA"):
        for dataset, label in SAFETY_SETS.items():
            for number in range(30):
                wrong = number < (10 if method == "Original" else 3)
                benign = 1.5 if label == "benign" else -1.5
                answer = -benign if wrong else benign
                group = ("over-refusal" if label == "benign" else "jailbreak") if wrong else "handled rightly"
                key = {"id": f"{dataset}.{number:03d}", "group": group}
                values = {"benign_projection": generator.normal(benign, 0.5)}
                values["answer_projection"] = generator.normal(answer, 0.5)
                rows += [(method, dataset, name, value, key) for name, value in values.items()]
    return rows


def scores(generator) -> list[tuple]:
    names = [f"{kind}.{layer:02d}" for kind in ("attention", "mlp") for layer in range(LAYERS)]
    return [
        ("Original", "validation", "score", generator.normal(0.1 * i % 6, 0.1), {"sublayer": name})
        for i, name in enumerate(names)
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
    rows = [("Original", "validation", name, value) for name, value in (("f1", 0.6), ("strict_f1", 0.58))]
    for degrees in range(0, 91, 10):
        for draw in range(3):
            value = 0.93 - 0.4 * (degrees / 90) ** 2 + generator.normal(0, 0.03)
            for name, drop in (("f1", 0), ("strict_f1", 0.06)):
                rows.append(("LLM-VA", "validation", name, value - drop, {"degrees": degrees, "draw": draw}))
    return rows


def iterations(generator, length=ITERATIONS) -> list[tuple]:
    rows = [("LLM-VA", "validation", "best_iteration", BEST)]
    for number in range(length):
        progress, noise = 1 - numpy.exp(-number / 3), generator.normal(0, 0.02)
        values = {"f1": 0.6 + 0.35 * progress, "strict_f1": 0.6 + 0.3 * progress, "asr": 0.5 - 0.4 * progress}
        values |= {"orr": 0.4 - 0.3 * progress, "degenerate": 0.1 * progress, "mean_angle": 88 - 60 * progress}
        values |= {"mean_scale": 1 + progress, "mean_accuracy_answer": 0.8 + 0.1 * progress, "divergence": progress}
        key = {"iteration": number}
        rows += [("LLM-VA", "validation", name, value + noise, key) for name, value in values.items()]
    return rows


def selections(generator) -> list[tuple]:
    rows = [("LLM-VA", "validation", "chosen", 8)]
    for count in (4, 6, 8, 10, 12):
        names = {"f1": 0.9, "strict_f1": 0.85, "kept": 0.97, "kept_gsm": 0.7}
        rows += [
            (
                "LLM-VA",
                "validation",
                name,
                value - 0.01 * (count - 8) ** 2 + generator.normal(0, 0.02),
                {"l_select": count},
            )
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
                (method, "validation", name, value + generator.normal(0, 0.02), {"iteration": number})
                for name, value in values.items()
            ]
    return rows


def ridge(generator) -> list[tuple]:
    rows = []
    for place, method in enumerate(("LLM-VA", "soft SVM", "ridge edit", "LLM-VA-R", "lambda 0", "mu 0.1")):
        for number in range(ITERATIONS):
            value = 0.6 + (0.2 + 0.04 * place) * (1 - numpy.exp(-number / (6 - place))) + generator.normal(0, 0.03)
            rows.append((method, "validation", "strict_f1", value, {"iteration": number}))
        finals = {"test_strict_f1": 0.85, "transfer_strict_f1": 0.78, "kept": 0.9, "kept_gsm": 0.6}
        rows += [
            (method, "test", name, value + 0.03 * place + generator.normal(0, 0.03)) for name, value in finals.items()
        ]
    return rows


def fronts(generator) -> list[tuple]:
    rows = []
    for place, method in enumerate(("Original", "SCANS", "LLM-VA-R", "LLM-VA-R, beta")):
        for trial in range(1 if method in ("Original", "LLM-VA-R") else 3):
            toxic, benign = 0.5 - 0.1 * place + 0.1 * trial, 0.5 - 0.1 * place - 0.05 * trial
            for name, value in (("strict_asr", toxic), ("strict_orr", benign)):
                rows.append((method, "test", name, abs(value + generator.normal(0, 0.01)), {"trial": trial}))
    return rows


ITEMS = {
    "frontier": fronts,
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
    return drawing.draw_figure(item, slugs), drawing.figure_data(item, slugs)


def drawn_lines(axis) -> dict[str, numpy.ndarray]:
    """Return each named line's points; seaborn names an empty line of the same look."""
    lines = axis.get_lines()
    unnamed = {to_hex(line.get_color()): line for line in lines if line.get_label().startswith("_") and points_of(line)}
    whole = {line.get_label(): line if points_of(line) else unnamed.get(to_hex(line.get_color())) for line in lines}
    return {label: numpy.column_stack(line.get_data()) for label, line in whole.items() if line}


def points_of(line) -> int:
    return len(line.get_xdata())


def lines_by_color(axis) -> dict[str, list]:
    colors = {}
    for line in axis.get_lines():
        if points_of(line):
            colors.setdefault(to_hex(line.get_color()), []).append(line)
    return colors


def notes_of(figure) -> str:
    """Return the note below the panels, on one line."""
    return figure.legends[-1].get_texts()[0].get_text().replace("\n", " ")


def bars_by_place(axis) -> list:
    return sorted((bar for bars in axis.containers for bar in bars), key=lambda bar: bar.get_y())


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
    for axis, slug in zip(visible(figure), SLUGS, strict=True):
        rows = data[data["model"] == slug]
        outside = (rows["angle"] < rows["angle_null_low"]) | (rows["angle"] > rows["angle_null_high"])
        assert axis.get_title() == f"{slug}\n{outside.sum()} of {len(rows)} outside the band"
    rows = data[(data["model"] == "tiny-llama") & (data["kind"] == "mlp")]
    axis = visible(figure)[1]
    lines = drawn_lines(axis)
    assert numpy.array_equal(lines["MLP"], rows[["layer", "angle"]].to_numpy() + (0.5, 0))
    assert "Single runs" not in lines
    assert any(set(line[:, 1]) == {90} for name, line in lines.items() if name != "MLP")
    random = [line.get_ydata() for line in axis.get_lines() if line.get_label().endswith("random directions")]
    assert {value for line in random for value in line} == {80, 100}
    limits = {axis.get_ylim() for axis in visible(figure)}
    assert len(limits) == 1
    assert notes_of(figure).startswith("Outside: runs (dots) outside their own run's band; by chance 8.7 % are.")


def test_figure9_draws_the_single_runs_that_a_mean_is_made_of(folders):
    for seed in (1, 2):
        write(f"tiny-llama-s{seed}", "figure9", angles(numpy.random.default_rng(seed + 50)))
    slugs = ["tiny-llama", "tiny-llama-s1", "tiny-llama-s2", "tiny-qwen2"]
    figure, data = drawn("figure9", slugs)
    dots = [line.get_ydata() for line in visible(figure)[0].get_lines() if line.get_label() == "Single runs"]
    for number, (slug, drawn_ones) in enumerate(zip(slugs, dots, strict=False), start=1):
        results = read_results("figure9", [slug]).set_index(["metric", "sublayer"])["value"]["angle"]
        in_turn = [f"{kind}.{layer:02d}" for layer in range(LAYERS) for kind in ("attention", "mlp")]
        assert list(drawn_ones) == list(results[in_turn])
        rows = data[data["model"] == "tiny-llama"].sort_values(["layer", "kind"])
        assert list(rows[f"angle_run_{number}"]) == list(drawn_ones)
    assert len(dots) == 3
    alone = data[data["model"] == "tiny-qwen2"]
    assert alone["angle_run_1"].equals(alone["angle"]) and alone["angle_run_2"].isna().all()


def test_the_chance_of_lying_outside_is_that_of_one_more_permutation():
    draws = numpy.random.default_rng(0).random((20_000, angles_item.PERMUTATIONS + 1))
    low, high = numpy.quantile(draws[:, 1:], [0.025, 0.975], axis=1)
    share = ((draws[:, 0] < low) | (draws[:, 0] > high)).mean()
    assert angles_item.chance_outside() == pytest.approx(0.0873, abs=5e-5)
    assert angles_item.chance_outside() == pytest.approx(share, abs=0.005)


def test_labels_say_what_the_parameters_do():
    for slug in known_slugs():
        params = load_params(slug)
        assert params.null_draws == angles_item.PERMUTATIONS
        assert params.probe.iterations == distortion_item.ITERATIONS
        if is_organism(slug):
            assert "8 and 12" in l_select.WORDS["labels"]["note"] and params.probe.l_select == [8, 12]


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
    assert benign["class"].equals(benign["dataset"].map(SAFETY_SETS))
    assert [axis.get_title() for axis in visible(figure)] == [
        f"${vector}$, MLP {layer}" for vector in ("v_b", "v_a") for layer in (0, 2, 5)
    ]
    means = data[data["layer"] == 5].groupby("class")["projection"].mean()
    assert means["benign"] > 2 > -2 > means["toxic"]
    assert len(visible(drawing.draw_figure("figure2", SLUGS))) == 3 * 6


def test_figure2_survives_missing_numbers_and_one_class(folders):
    key = {"sublayer": "mlp.00", "verdict": "answered"}
    rows = [("Original", "nq", "benign_projection", value, key) for value in (0.1, float("nan"), 0.1)]
    write("tiny-llama", "figure2", [*rows, ("Original", "nq", "answer_projection", 0.0, key)])
    figure, data = drawn("figure2", ["tiny-llama"])
    assert len(data) == 3
    assert len(visible(figure)) == 2


def test_figure3_places_the_groups_before_and_after(folders):
    figure, data = drawn("figure3", ["tiny-llama"])
    counts = data.groupby(["method", "group"]).size()
    assert counts[("Original", "jailbreak")] == counts[("Original", "over-refusal")] == 20
    assert counts[("LLM-VA", "jailbreak")] == 6
    assert data["id"].str.fullmatch(r"(seval_attack|seval_risk|orfuzzset|nq)\.\d{3}").all()
    before, after = visible(figure)
    assert [before.get_title(), after.get_title()] == ["tiny-llama, before", "tiny-llama, after"]
    assert (before.get_xlim(), before.get_ylim()) == (after.get_xlim(), after.get_ylim())
    points = {dots.get_label(): dots.get_offsets() for dots in after.collections}
    expected = data[(data["method"] == "LLM-VA") & (data["group"] == "jailbreak")]
    assert numpy.array_equal(points["jailbreak"], expected[["benign_projection", "answer_projection"]].to_numpy())


def test_figure3_says_where_no_edit_was_chosen(folders):
    def stay(frame):
        after = frame[frame["method"] == "Original"].assign(method="LLM-VA")
        return pandas.concat([frame[frame["method"] == "Original"], after])

    change("tiny-llama", "figure3", stay)
    titles = [axis.get_title() for axis in visible(drawing.draw_figure("figure3", SLUGS))]
    assert titles[2:5] == ["tiny-llama, before", "tiny-llama, after (no edit chosen)", "tiny-qwen2, before"]
    assert "no edit" not in "".join([*titles[:3], *titles[4:]])


def test_figure10_draws_the_scores_of_both_kinds(folders):
    figure, data = drawn("figure10", SLUGS)
    assert list(data.columns) == ["model", "kind", "layer", "score", "seeds"]
    rows = data[(data["model"] == "tiny-qwen2") & (data["kind"] == "attention")]
    assert numpy.array_equal(drawn_lines(visible(figure)[2])["Attention"], rows[["layer", "score"]].to_numpy())


def test_figure4_needs_no_results_and_every_arrow_joins_two_boxes():
    data = drawing.figure_data("figure4")
    boxes, arrows = (data[data["kind"] == kind] for kind in ("box", "arrow"))
    assert {*arrows["from"], *arrows["to"]} == set(boxes["name"])
    assert ("Edited model", "Model responds") in set(arrows[["from", "to"]].itertuples(index=False, name=None))
    figure = drawing.draw_figure("figure4")
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
    arithmetic = 100 * kept.xs("gsm", level="task")
    loops = ("LLM-VA", "LLM-VA-R")
    assert sorted(text.get_text() for text in right.texts) == sorted(
        f"{arithmetic[slug, loop]:.0f}" for slug in SLUGS for loop in loops
    )
    for bars, loop in zip(right.containers, loops, strict=True):
        assert [bar.get_width() for bar in bars] == pytest.approx([arithmetic[slug, loop] for slug in SLUGS])
        assert {to_hex(bar.get_facecolor()) for bar in bars} == {style.METHOD_COLORS[loop].lower()}


def test_figure5_of_one_model_shows_the_arithmetic_of_every_method(folders):
    figure, data = drawn("figure5", ["tiny-llama"])
    kept = 100 * data[data["task"] == "gsm"]["kept"]
    widths = [bar.get_width() for bar in bars_by_place(figure.axes[1])]
    assert widths == pytest.approx(list(kept))


def test_figure5_shows_the_worst_and_best_run(folders):
    for seed in (1, 2):
        write(f"tiny-llama-s{seed}", "utility", utility(numpy.random.default_rng(seed + 50)))
    slugs = ["tiny-llama", "tiny-llama-s1", "tiny-llama-s2", "tiny-qwen2"]
    single = {slug: drawing.figure_data("figure5", [slug]) for slug in slugs}
    for shown in (slugs, slugs[:3]):
        figure, data = drawn("figure5", shown)
        assert [name for name in data if name.startswith("kept_run")] == [f"kept_run_{number}" for number in (1, 2, 3)]
        (lines,) = figure.axes[0].collections
        assert lines.get_label() == "Range over runs"
        for method, segment in zip(data["method"].unique(), lines.get_segments(), strict=True):
            runs = [100 * single[slug].groupby("method")["kept"].mean()[method] for slug in shown]
            assert segment[:, 0] == pytest.approx([min(runs), max(runs)])
    assert not drawing.draw_figure("figure5", slugs[:1]).axes[0].collections


def test_figure5_does_without_arithmetic(folders):
    change("tiny-llama", "utility", lambda frame: frame[frame["dataset"] != "gsm"])
    assert len(drawing.draw_figure("figure5", ["tiny-llama"]).axes) == 1


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
    results = read_results("figure6", ["tiny-llama"])
    draws = list(results[(results["metric"] == "strict_f1") & (results["degrees"] == 40)]["value"])
    assert len(draws) == 3
    row = data[data["degrees"] == 40].iloc[0]
    assert row["strict_f1"] == pytest.approx(numpy.mean(draws))
    assert (row["strict_f1_low"], row["strict_f1_high"]) == (min(draws), max(draws))
    lines = drawn_lines(figure.axes[0])
    assert numpy.array_equal(lines["F1"], data[["degrees", "f1"]].to_numpy())
    originals = [line.get_ydata()[0] for line in figure.axes[0].get_lines() if line.get_label() == "Original"]
    assert originals == [0.58, 0.6]
    assert figure.axes[0].get_ylim()[0] == 0

    def agree(frame):
        return frame.assign(value=frame["value"].where(frame["method"] != "Original", 0.6))

    change("tiny-llama", "figure6", agree)
    lines = drawing.draw_figure("figure6", ["tiny-llama"]).axes[0].get_lines()
    assert [line.get_label() for line in lines].count("Original") == 1


def test_figure12_draws_rates_and_marks_the_choice(folders):
    figure, data = drawn("figure12", SLUGS)
    assert list(data.columns) == [
        "model", "iteration", "strict_f1", "asr", "orr", "degenerate", "stopped", "best_iteration", "seeds"
    ]  # fmt: skip
    rows = data[data["model"] == SLUGS[1]]
    axis = figure.axes[1]
    assert axis.get_title() == SLUGS[1]
    assert numpy.array_equal(drawn_lines(axis)["Strict F1"], rows[["iteration", "strict_f1"]].to_numpy())
    assert numpy.array_equal(drawn_lines(axis)["ORR"], rows[["iteration", "orr"]].to_numpy())
    assert any(set(line.get_xdata()) == {BEST} for line in axis.get_lines() if points_of(line) == 2)
    (mark,) = [line for line in axis.get_lines() if line.get_marker() == "o"]
    assert mark.get_ydata() == rows.loc[rows["iteration"] == BEST, "strict_f1"].to_numpy()


def test_figure12_marks_where_a_run_stopped(folders):
    def fall(frame):
        frame = frame[~(frame["iteration"] > 4).fillna(False)]
        last = (frame["metric"] == "strict_f1") & (frame["iteration"] == 4).fillna(False)
        return frame.assign(value=frame["value"].mask(last, 0.02))

    change("tiny-llama", "figure12", fall)
    figure, data = drawn("figure12", SLUGS)
    assert data.loc[data["stopped"] > 0, ["model", "iteration"]].to_numpy().tolist() == [["tiny-llama", 4]]
    marks = [drawn_lines(axis).get("Run stopped") for axis in figure.axes]
    assert [mark is not None for mark in marks] == [False, True, False]
    assert marks[1].tolist() == [[4, 0.02]]
    # What was not measured where a run stopped is marked where it ends.
    unmeasured = lambda frame: (frame["metric"] == "mean_scale") & (frame["iteration"] == 4).fillna(False)  # noqa: E731
    change("tiny-llama", "figure12", lambda frame: frame[~unmeasured(frame)])
    figure, data = drawn("figure12_health", ["tiny-llama"])
    for place, quantity, end in ((3, "divergence", 4), (1, "mean_scale", 3)):
        last = data.loc[data["quantity"] == quantity, "value"].iloc[-1]
        assert drawn_lines(figure.axes[place])["Run stopped"].tolist() == [[end, last]]


def test_a_run_that_ends_before_its_seeds_was_stopped(folders):
    write("tiny-llama-s1", "figure12", iterations(numpy.random.default_rng(5), length=5))
    data = drawing.figure_data("figure12", ["tiny-llama", "tiny-llama-s1"])
    assert data.loc[data["stopped"] > 0, "iteration"].tolist() == [4]
    assert data["iteration"].max() == ITERATIONS - 1


def test_figure7_shows_both_scores_of_the_first_three_models(folders):
    write_all("tiny-phi3", numpy.random.default_rng(9))
    figure, data = drawn("figure7", [*SLUGS, "tiny-phi3"])
    assert list(data["model"].unique()) == SLUGS
    assert data["strict_f1"].equals(drawing.figure_data("figure12", SLUGS)["strict_f1"])
    rows = data[data["model"] == SLUGS[2]]
    assert numpy.array_equal(drawn_lines(figure.axes[2])["F1"], rows[["iteration", "f1"]].to_numpy())
    assert not {"asr", "orr", "degenerate"} & set(data)


def test_the_health_of_the_loop_has_a_panel_for_each_quantity_and_a_line_for_each_model(folders):
    figure, data = drawn("figure12_health", SLUGS)
    assert len(visible(figure)) == 4
    for axis, (quantity, factor) in zip(visible(figure), HEALTH.items(), strict=True):
        for slug in SLUGS:
            rows = data[(data["model"] == slug) & (data["quantity"] == quantity)]
            assert numpy.allclose(drawn_lines(axis)[slug], rows[["iteration", "value"]].to_numpy() * (1, factor))


def test_the_health_of_the_loop_is_drawn_where_it_was_logged(folders):
    change("tiny-llama", "figure12", lambda frame: frame[frame["metric"] != "divergence"])
    figure, data = drawn("figure12_health", ["tiny-llama"])
    assert "divergence" not in set(data["quantity"])
    assert len(visible(figure)) == 3
    change("tiny-llama", "figure12", lambda frame: frame[~frame["metric"].str.startswith("mean_")])
    with pytest.raises(InputError, match="nothing that figure12_health draws"):
        drawing.draw_figure("figure12_health", ["tiny-llama"])
    assert "figure12_health" not in FIGURES.named("all", ["tiny-llama"])


def test_figure8_draws_a_line_for_each_model(folders):
    figure, data = drawn("figure8", SLUGS)
    assert list(data["l_select"].unique()) == [4, 6, 8, 10, 12]
    rows = data[data["model"] == "tiny-llama"]
    line = drawn_lines(figure.axes[1])["tiny-llama"]
    assert numpy.allclose(line[:, 1], 100 * rows["kept"])
    # Models stand a little apart, so that none hides another.
    assert numpy.abs(line[:, 0] - rows["l_select"]).max() < 0.5
    assert len({drawn_lines(figure.axes[1])[slug][0, 0] for slug in SLUGS}) == len(SLUGS)
    circles = [line for line in lines_by_color(figure.axes[1])["#000000"] if line.get_marker() == "o"]
    chosen = [numpy.column_stack(circle.get_data())[2] for circle in circles]
    assert len(chosen) == len(SLUGS)
    assert any(numpy.allclose(place, line[2]) for place in chosen)
    assert all(numpy.isfinite(circle.get_ydata()).sum() == 1 for circle in circles)


def test_figure11_sets_one_judge_above_two(folders):
    figure, data = drawn("figure11", SLUGS)
    rates = ("seval_attack_asr", "seval_risk_asr", "orfuzzset_orr", "nq_orr")
    panels = [(method, rate) for method in ("one judge", "combined judges") for rate in rates]
    for axis, (method, rate) in zip(figure.axes, panels, strict=True):
        rows = data[(data["method"] == method) & (data["model"] == "tiny-llama")]
        assert numpy.allclose(drawn_lines(axis)["tiny-llama"][:, 1], 100 * rows[rate].to_numpy())
    assert [axis.get_ylabel() for axis in figure.axes[::4]] == ["one judge", "two judges"]
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
    assert dots_of(figure.axes[-1]) == pytest.approx(sorted(100 * finals.to_numpy().ravel()))
    assert data.loc[data["measure"] != "strict_f1", "iteration"].isna().all()


def test_figure13_has_no_panel_for_arithmetic_that_no_model_has(folders):
    panels = len(visible(drawn("figure13", SLUGS)[0]))
    for slug in SLUGS:
        change(slug, "ridge", lambda frame: frame[frame["metric"] != "kept_gsm"])
    figure, data = drawn("figure13", SLUGS)
    assert len(visible(figure)) == panels - 1 and "kept_gsm" not in set(data["measure"])
    assert figure.axes[-1].get_xlabel() == "Utility kept (%)"


def dots_of(axis) -> list[float]:
    return sorted(x for dots in axis.collections for x in dots.get_offsets()[:, 0])


def test_figure13_shows_controls_apart_beside_llm_va_r(folders):
    figure, data = drawn("figure13_controls", SLUGS)
    assert list(data["method"].unique()) == ["LLM-VA-R", "lambda 0", "mu 0.1"]
    assert [axis.get_title() for axis in visible(figure)[:3]] == ["LLM-VA-R", "lambda 0", "mu 0.1"]
    assert "Mean of LLM-VA-R" in drawn_lines(figure.axes[1])
    change("tiny-llama", "ridge", lambda frame: frame[frame["method"].isin(llm_va_r.PARTS)])
    assert FIGURES.named("figure13", ["tiny-llama"]) == ["figure13"]
    assert FIGURES.named("figure13", ["tiny-qwen2"]) == ["figure13", "figure13_controls"]


def test_each_loop_has_one_colour_in_every_figure(folders):
    figure = drawing.draw_figure("figure13", SLUGS)
    colors = {axis.get_title(): set(lines_by_color(axis)) for axis in visible(figure)[:4]}
    ours, paper = (style.METHOD_COLORS[name].lower() for name in ("LLM-VA-R", "LLM-VA"))
    assert colors["LLM-VA"] == {paper} and colors["LLM-VA-R"] == {ours, paper}
    assert colors["soft SVM"] == {"#000000", paper}
    strip = visible(figure)[-1]
    assert {to_hex(color) for dots in strip.collections for color in dots.get_facecolor()} == {
        ours,
        paper,
        style.GREY.lower(),
    }


def test_figure13_shows_every_seed_as_an_organism_of_its_own(folders):
    for seed in (10, 11):
        write(f"tiny-llama-s{seed}", "ridge", ridge(numpy.random.default_rng(seed)))
    figure, data = drawn("figure13", ["tiny-llama-s10", "tiny-llama-s11", "tiny-qwen2"])
    assert data["model"].nunique() == 3
    finals = data[data["measure"] == "kept"]
    assert dots_of(figure.axes[-2]) == pytest.approx(sorted(100 * finals["value"]))


def test_figure13_controls_have_room_for_any_number_of_variants(folders):
    def add(frame):
        others = [frame[frame["method"] == "soft SVM"].assign(method=f"lambda {number}") for number in range(1, 8)]
        return pandas.concat([frame, *others])

    change("tiny-llama", "ridge", add)
    figure, data = drawn("figure13_controls", ["tiny-llama"])
    assert len(visible(figure)) == 10 + 4
    assert list(data["method"].unique())[:3] == ["LLM-VA-R", "lambda 0", "lambda 1"]
    assert not overlaps(figure)


def test_a_curve_that_ended_early_keeps_its_last_value(folders):
    last = ITERATIONS // 2

    def stop(frame):
        return frame[~((frame["method"] == "soft SVM") & (frame["iteration"] > last).fillna(False))]

    change("tiny-llama", "ridge", stop)
    data = drawing.figure_data("figure13", SLUGS)
    curve = data[(data["model"] == "tiny-llama") & (data["method"] == "soft SVM") & (data["measure"] == "strict_f1")]
    assert list(curve["iteration"]) == list(range(ITERATIONS))
    assert curve["value"].iloc[last:].nunique() == 1 < curve["value"].iloc[: last + 1].nunique()
    # Where that begins is marked.
    assert data.loc[data["stopped"] > 0, ["model", "method", "iteration"]].to_numpy().tolist() == [
        ["tiny-llama", "soft SVM", last]
    ]
    figure = drawing.draw_figure("figure13", SLUGS)
    assert drawn_lines(figure.axes[1])["A run stopped"].tolist() == [[last, curve["value"].iloc[last]]]
    assert "A run stopped" not in drawn_lines(figure.axes[0])


def test_figure13_sets_scores_beside_scores_and_marks_ours(folders):
    figure, _ = drawn("figure13", SLUGS)
    strips = visible(figure)[-4:]
    assert strips[0].get_xlim() == strips[1].get_xlim() != strips[2].get_xlim() == strips[3].get_xlim()
    for axis in strips:
        values = dots_of(axis)
        assert axis.get_xlim()[0] < values[0] and values[-1] < axis.get_xlim()[1]
    bold = [label.get_text() for label in strips[0].get_yticklabels() if label.get_fontweight() == "bold"]
    assert bold == ["LLM-VA-R"] == [axis.get_title() for axis in figure.axes if axis.title.get_fontweight() == "bold"]


@pytest.mark.parametrize(("loops", "down"), [(1, 1), (7, 1), (8, 2), (13, 2), (14, 2), (15, 3)])
def test_figure13_leaves_no_row_to_one_panel(folders, monkeypatch, loops, down):
    names = ["LLM-VA-R", *(f"variant {number}" for number in range(loops - 1))]

    def replace(frame):
        ours = frame[frame["method"] == "LLM-VA-R"]
        return pandas.concat([ours.assign(method=name) for name in names])

    change("tiny-llama", "ridge", replace)
    monkeypatch.setattr(llm_va_r, "PARTS", ("Original", *names))
    rows = [axis.get_subplotspec().rowspan.start for axis in visible(drawing.draw_figure("figure13", ["tiny-llama"]))]
    counts = pandas.Series(rows[:loops]).value_counts()
    assert len(counts) == down
    assert counts.min() > 1 or loops == 1


# What all figures have in common


# Those of run-time steering are drawn from results of their own, in the test of their study.
STEERED = ("figure14", "figure15", "figure16")


@pytest.mark.parametrize("item", [item for item in FIGURES if item not in ("figure4", *STEERED)])
def test_a_legend_names_each_style_once(folders, item):
    figure = drawing.draw_figure(item, SLUGS)
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(names) == len(set(names)) >= 2
    assert not overlaps(figure)


def test_no_words_overlap_in_the_framework():
    figure = drawing.draw_figure("figure4")
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
        return [path.read_bytes() for path in drawing.save_figure(figure, item, data)]

    assert build() == build()
    table = pandas.read_csv(paths.FIGURES / f"{item}.csv", keep_default_na=item != "figure4")
    assert list(table.columns) == list(drawing.figure_data(item, SLUGS[:1]).columns)


def test_models_stand_in_the_order_given(folders):
    figure, data = drawn("figure9", SLUGS[::-1])
    titles = [axis.get_title().splitlines()[0] for axis in visible(figure)]
    assert titles == SLUGS[::-1]
    assert list(data["model"].unique()) == SLUGS[::-1]


@pytest.mark.parametrize("item", ["figure2", "figure5", "figure10", "figure13"])
def test_a_figure_says_once_which_models_are_organisms(folders, item):
    write_all("Qwen3-4B", numpy.random.default_rng(7))
    figure = drawing.draw_figure(item, SLUGS)
    assert notes_of(figure).count("Models named tiny-… are model organisms.") == 1
    assert not any("organism" in axis.get_title() for axis in figure.axes)
    assert "organism" not in notes_of(drawing.draw_figure(item, ["Qwen3-4B"]))


@pytest.mark.parametrize("item", [item for item in FIGURES if item not in ("figure4", *STEERED)])
def test_the_note_stands_below_the_panels(folders, item):
    figure = drawing.draw_figure(item, SLUGS)
    figure.draw_without_rendering()
    note = figure.legends[-1].get_window_extent()
    assert all(note.y1 <= axis.get_tightbbox().y0 + 1 for axis in visible(figure))
    assert all(figure.legends[0].get_window_extent().y0 >= axis.get_tightbbox().y1 - 1 for axis in visible(figure))


@pytest.mark.parametrize("item", ["figure1", "figure10"])
def test_drawing_twice_gives_the_same_bytes(folders, item):
    def build() -> dict[str, bytes]:
        files = drawing.save_figures(item, SLUGS[:1])
        return {path.relative_to(paths.FIGURES).as_posix(): path.read_bytes() for path in files}

    first = build()
    shutil.rmtree(paths.FIGURES)
    assert build() == first
    stems = [item] if item == "figure1" else [item, f"tiny-gemma2/{item}"]
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
    slugs = drawing.add_seeds("figure9", ["tiny-llama", "tiny-qwen2"], 4)
    assert slugs == ["tiny-llama", "tiny-llama-s1", "tiny-llama-s2", "tiny-qwen2"]
    for item, value in (("figure9", "angle"), ("figure5", "kept")):
        data = drawing.figure_data(item, slugs)
        assert data.groupby("model")["seeds"].first().to_dict() == {"tiny-llama": 3, "tiny-qwen2": 1}
        alone = [drawing.figure_data(item, [slug])[value] for slug in slugs[:3]]
        assert numpy.allclose(data.loc[data["model"] == "tiny-llama", value], numpy.mean(alone, axis=0))
    figure = drawing.draw_figure("figure9", slugs)
    assert figure.axes[0].get_title().splitlines()[0] == "tiny-llama (3 seeds)"


def test_seeds_join_in_only_where_a_mean_makes_sense(folders):
    write_all("tiny-llama-s1", numpy.random.default_rng(7))
    assert drawing.add_seeds("figure2", ["tiny-llama"], 3) == ["tiny-llama"]
    assert drawing.add_seeds("figure10", ["tiny-llama", "Qwen3-4B"], 1) == ["tiny-llama", "Qwen3-4B"]
    assert drawing.add_seeds("figure10", ["tiny-llama-s1"], 3) == ["tiny-llama-s1"]
    assert list(drawing.figure_data("figure10", ["tiny-llama-s1"])["model"].unique()) == ["tiny-llama-s1"]
    data = drawing.figure_data("figure3", ["tiny-llama", "tiny-llama-s1"])
    assert list(data["model"].unique()) == ["tiny-llama", "tiny-llama-s1"]


def test_one_mean_never_holds_organisms_and_real_models(folders, monkeypatch):
    write_all("Qwen3-4B", numpy.random.default_rng(7))
    with pytest.raises(InputError, match="figure13: --models: models of different kinds have no common mean"):
        drawing.draw_figure("figure13", ["tiny-llama", "Qwen3-4B"])
    saved = {}
    monkeypatch.setattr(
        drawing, "save_figure", lambda figure, name, data: saved.update({name: set(data["model"])}) or []
    )
    drawing.save_figures("figure13", ["tiny-llama", "Qwen3-4B"])
    assert saved == {"figure13": {"Qwen3-4B"}, "figure13_organisms": {"tiny-llama"}}


# What is missing


def test_a_missing_model_fails_the_figure(folders):
    with pytest.raises(InputError, match="tiny-phi3/figure9.csv: missing; run `make figure9 MODELS=tiny-phi3`"):
        drawing.draw_figure("figure9", ["tiny-llama", "tiny-phi3"])


def test_an_unknown_data_set_or_metric_is_named(folders):
    change("tiny-llama", "figure2", lambda frame: frame.assign(dataset="jailbreakbench"))
    with pytest.raises(InputError, match="jailbreakbench: benign or toxic is not known"):
        drawing.draw_figure("figure2", ["tiny-llama"])
    write("tiny-llama", "figure10", projections(numpy.random.default_rng(0)))
    with pytest.raises(
        InputError,
        match="tiny-llama/figure10.csv: metric: no score by sublayer; run `make figure10 MODELS=tiny-llama`",
    ):
        drawing.draw_figure("figure10", SLUGS)


@pytest.mark.parametrize(
    ("item", "source", "metric", "key", "message"),
    [
        ("figure9", "figure9", "angle_random_low", "mlp.03", "metric: angle_random_low, sublayer mlp.03: missing"),
        ("figure9", "figure9", "angle_random_low", None, "metric: angle_random_low, sublayer attention.00: missing"),
        ("figure3", "figure3", "answer_projection", "nq.003",
         "metric: answer_projection, method LLM-VA, dataset nq, id nq.003, group handled rightly: missing"),
        ("figure6", "figure6", "f1", (40, 1), "metric: f1, degrees 40, draw 1: missing"),
        ("figure12", "figure12", "orr", 5, "metric: orr, iteration 5: missing"),
        ("figure7", "figure12", "best_iteration", None, "metric: no best_iteration"),
        ("figure8", "figure8", "kept", None, "metric: kept, l_select 4: missing"),
        ("figure8", "figure8", "chosen", None, "metric: no chosen"),
        ("figure11", "figure11", "nq_orr", 2, "metric: nq_orr, method combined judges, iteration 2: missing"),
        ("figure13", "ridge", "transfer_strict_f1", None, "metric: transfer_strict_f1, method LLM-VA: missing"),
        ("figure13", "ridge", "strict_f1", None, "metric: no strict_f1 by method, iteration"),
    ],
)  # fmt: skip
def test_a_missing_metric_is_named(folders, item, source, metric, key, message):
    keys = {"figure9": ["sublayer"], "figure3": ["id"], "figure6": ["degrees", "draw"]}.get(source, ["iteration"])

    def drop(frame):
        wrong = frame["metric"] == metric
        for name, value in zip(keys, key if isinstance(key, tuple) else [key], strict=False):
            wrong &= (frame[name] == value).fillna(False) if key is not None else True
        return frame[~wrong]

    change("tiny-llama", source, drop)
    variable = "FRESH" if source == "ridge" else "MODELS"
    expected = f"tiny-llama/{source}.csv: {message}; run `make {source} {variable}=tiny-llama`"
    with pytest.raises(InputError) as error:
        drawing.draw_figure(item, SLUGS)
    assert str(error.value).endswith(expected)


def test_the_original_of_figure6_is_named_where_it_is_missing(folders):
    change("tiny-llama", "figure6", lambda frame: frame[~((frame["method"] == "Original") & (frame["metric"] == "f1"))])
    with pytest.raises(InputError, match="tiny-llama/figure6.csv: metric: f1: missing; run"):
        drawing.draw_figure("figure6", SLUGS)


def test_results_from_before_the_key_columns_are_told_to_be_made_anew(folders):
    rows = [("Original", "validation", f"score.mlp.{layer:02d}", 1.0) for layer in range(LAYERS)]
    write("tiny-llama", "figure10", rows)
    for slugs in (["tiny-llama"], SLUGS):
        with pytest.raises(InputError, match="tiny-llama/figure10.csv: metric: no score by sublayer; run"):
            drawing.draw_figure("figure10", slugs)
    write("tiny-llama", "figure2", [("Original", "nq", "benign_projection.mlp.00.answered", 1.0)])
    with pytest.raises(InputError, match="tiny-llama/figure2.csv: nothing that figure2 draws; run `make figure2"):
        drawing.draw_figure("figure2", ["tiny-llama"])


@pytest.mark.parametrize(
    ("item", "source", "method", "message"),
    [
        ("figure5", "utility", "Original", "method: no Original"),
        ("figure5", "utility", "SCANS", "metric: SCANS, task cola, measure f1: missing"),
        ("figure11", "figure11", "one judge", "method: no one judge"),
        ("figure13", "ridge", "soft SVM", "method: no soft SVM"),
    ],
)
def test_a_missing_method_is_named(folders, item, source, method, message):
    change("tiny-llama", source, lambda frame: frame[frame["method"] != method])
    with pytest.raises(InputError, match=f"tiny-llama/{source}.csv: {message}; run"):
        drawing.draw_figure(item, SLUGS)


def test_a_number_that_stands_twice_is_named(folders):
    def repeat(frame):
        return pandas.concat([frame, frame[(frame["metric"] == "kept") & (frame["l_select"] == 6).fillna(False)]])

    change("tiny-llama", "figure8", repeat)
    with pytest.raises(InputError, match="tiny-llama/figure8.csv: metric: kept, l_select 6: stands twice; run"):
        drawing.draw_figure("figure8", SLUGS)


# The command


def test_the_command_draws_what_has_results(folders, capsys):
    for path in (paths.RESULTS / "tiny-llama").iterdir():
        if path.stem != "figure10":
            path.unlink()
    write("tiny-llama-s1", "figure10", scores(numpy.random.default_rng(8)))
    with pytest.raises(SystemExit) as stop:
        drawing.main(["all", "--models", "tiny-llama", "--seeds", "3"])
    assert stop.value.code == 0
    drawn_files = {path.relative_to(paths.FIGURES).with_suffix("").as_posix() for path in paths.FIGURES.rglob("*.*")}
    assert drawn_files == {"figure4", "figure10", "tiny-llama/figure10"}
    assert "figure10.pdf, .png, .csv of 2 studies, and 1 more figures" in capsys.readouterr().out


def test_the_command_needs_some_results(folders, capsys):
    with pytest.raises(SystemExit) as stop:
        drawing.main(["all", "--models", "tiny-phi3"])
    assert stop.value.code == 2
    assert "no figure's results for tiny-phi3" in capsys.readouterr().err


def test_the_command_lists_the_figures_it_knows(folders, capsys):
    with pytest.raises(SystemExit) as stop:
        drawing.main(["figure99", "--models", "tiny-llama"])
    assert stop.value.code == 2
    assert "known are figure1, figure2, figure3, figure4, figure5" in capsys.readouterr().err


def test_all_tells_which_models_a_figure_is_drawn_without(folders, capsys, monkeypatch):
    (paths.RESULTS / "tiny-qwen2" / "figure10.csv").unlink()
    with pytest.raises(SystemExit) as stop:
        drawing.main(["figure10", "--models", *SLUGS])
    assert stop.value.code == 2
    # What is drawn is tested elsewhere, and all figures at once take minutes.
    monkeypatch.setattr(drawing, "save_figures", lambda item, slugs: [paths.FIGURES / f"{item}.pdf"])
    with pytest.raises(SystemExit) as stop:
        drawing.main(["all", "--models", *SLUGS])
    assert stop.value.code == 0
    assert "figure10: without tiny-qwen2, which have no results of it yet" in capsys.readouterr().out


def test_an_item_of_other_models_joins_all_the_others(folders, capsys, monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        drawing, "save_figures", lambda item, slugs: drawn.update({item: slugs}) or [paths.FIGURES / f"{item}.pdf"]
    )
    ridge = paths.RESULTS / "tiny-llama-s10" / "ridge.csv"
    ridge.parent.mkdir()
    ridge.write_text((paths.ROOT / "results" / "tiny-llama-s10" / "ridge.csv").read_text(encoding="utf-8"))
    with pytest.raises(SystemExit) as stop:
        drawing.main(["all", "--models", *SLUGS, "--apart", "figure13", "tiny-llama-s10", "tiny-llama-s11"])
    assert stop.value.code == 0 and drawn["figure13"] == ["tiny-llama-s10"] and drawn["figure10"] == list(SLUGS)
    assert "figure13: without tiny-llama-s11, which have no results of it yet" in capsys.readouterr().out
