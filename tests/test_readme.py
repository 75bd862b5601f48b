"""README's numbers are those of the committed tables, its paths exist, and each cost stands in one notebook's box."""

import re
import shutil

import nbformat
import pandas
import pytest
from prose import changed_at_each_number, count_in_words, list_in_words, standing_by_seed, unchecked_numbers
from test_committed import committed, pretrained_of  # noqa: F401

from llmva.core import paths
from llmva.core.paths import ROOT
from llmva.paper.names import count_seeds, describe_runs
from llmva.paper.overview import overview_rows, with_rows
from llmva.paper.tables import TABLES


def read_readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def read_results_section() -> str:
    """Return what README says of results: the picture's caption, the table and the findings."""
    text = read_readme()
    return text[: text.index("```sh")] + text[text.index("## What comes out") : text.index("## Content note")]


# Numbers


def caption(folder) -> str:
    """Return the sentence on the picture: replies of one organism before and after the paper's loop."""
    return fates(pandas.read_csv(folder / "results" / "tiny-gemma2" / "figure3.csv"))


def fates(rows: pandas.DataFrame) -> str:
    """Return how many of a picture's prompts fail before and after."""
    rows = rows[rows["metric"] == rows["metric"].iloc[0]]
    before, after = (rows[rows["method"] == method]["group"].value_counts() for method in ("Original", "LLM-VA"))
    broken = after.get("broken reply", 0)
    return (
        f"Of {before.sum()} validation prompts it answers {before['jailbreak']} toxic ones before and "
        f"{after['jailbreak']} after, and refuses {before['over-refusal']} benign ones before and "
        f"{after['over-refusal']} after; {f'{broken} replies break' if broken else 'no reply breaks'}."
    )


def size_of_a_run(folder) -> str:
    """Return how many prompts and runs the table averages over."""
    test, unseen = (pandas.read_csv(folder / "tables" / f"{name}_seeds.csv") for name in ("table2", "table4"))
    assert test["model"].nunique() == 18
    return f"a run has {test['n'].unique().item()} test prompts and {unseen['n'].unique().item()} of unseen sets"


def fate_of_the_papers_loop(folder) -> str:
    """Return in how many runs the paper's loop does well."""
    runs = pandas.read_csv(folder / "tables" / "table2_seeds.csv")
    scores = runs[runs["method"] == "LLM-VA"].set_index("model")["strict_f1"]
    high, middle = scores[scores > 0.9], scores[scores.between(0.7, 0.9)]
    return (
        f"in {count_in_words(len(high))} of the eighteen runs it reaches a strict F1 above 0.9, in "
        f"{count_in_words(len(middle))} more one of {middle.min():.3f} to {middle.max():.3f}, and in the other "
        f"{count_in_words(18 - len(high) - len(middle))} it finds little."
    )


def confirmed_on_fresh_organisms(folder) -> str:
    """Return the sentence on the organisms that no choice was made on."""
    table = pandas.read_csv(folder / "tables" / "ridge.csv").set_index("method")
    ours, paper, tuned = table.loc["LLM-VA-R"], table.loc["LLM-VA"], table.loc["Fine-tuning"]
    scores = [
        "{test_strict_f1_mean:.3f} [{test_strict_f1_mean_low:.3f}, {test_strict_f1_mean_high:.3f}] "
        "(worst {test_strict_f1_worst:.3f})".format(**row)
        for row in (ours, paper)
    ]
    # Corrected for three comparisons it is larger still.
    assert paper["transfer_strict_f1_p"] > 0.05
    unseen = [f"{row['transfer_strict_f1_mean']:.3f}" for row in (ours, paper)]
    return (
        f"on {int(ours['studies'])} fresh organisms, which took part in no choice, its strict F1 is {scores[0]}, "
        f"beside {scores[1]} of LLM-VA and {tuned['test_strict_f1_mean']:.3f} of fine-tuning, "
        f"and it keeps {ours['kept_mean']:.3f} of the utility. On their unseen sets its lead over LLM-VA, "
        f"{unseen[0]} against {unseen[1]}, is not confirmed."
    )


def noise_on_the_weights(folder) -> str:
    """Return what loose and strict F1 make of a model that is only noise."""
    rows = pandas.read_csv(folder / "results" / "tiny-llama" / "noise.csv")
    noised = rows[rows["noise"] == 1.0].set_index("metric")["value"]
    return (
        f"loose F1 is {noised['f1']:.3f}, strict F1 {noised['strict_f1']:.3f}, "
        f"and {100 * noised['degenerate']:.1f} % of the replies are broken"
    )


def at_run_time(folder) -> str:
    """Return where two-sided gating is level with the weight edit, and where it is not."""
    rows = pandas.read_csv(folder / "tables" / "gating.csv").set_index(["measure", "method"])
    mean, p_value = rows["mean"], rows["p"][:, "Two-sided StMP"]
    assert p_value[["test", "unseen"]].min() > 0.05 > p_value[["attacks", "kept"]].max()
    ours, edit = (mean[:, method] for method in ("Two-sided StMP", "LLM-VA-R"))
    return (
        f"is level with LLM-VA-R on test prompts and unseen sets (strict F1 {ours['test']:.3f} and "
        f"{ours['unseen']:.3f} against {edit['test']:.3f} and {edit['unseen']:.3f}), but below it under attacks in "
        f"wrappers that no method has seen ({ours['attacks']:.3f} against {edit['attacks']:.3f}) and in utility "
        f"({ours['kept']:.3f} against {edit['kept']:.3f})."
    )


def the_second_paper(folder) -> str:
    """Return what steering at run time brings back of two traits, and at which coherence."""
    rows = pandas.read_csv(folder / "tables" / "runtime.csv").fillna({"position": "all"})
    assert rows["model"].nunique() == 6
    runs = describe_runs(count_seeds(rows["model"]))
    means = rows.groupby(["threat", "method", "position"])[["trait", "coherence"]].mean()
    said = []
    for method in ("StMP", "SwFC"):
        lie, curt = (means.loc[(threat, method, "all")] for threat in ("dishonesty", "dismissiveness"))
        said.append(
            f"{100 * lie['trait']:.1f} % of honesty and {100 * curt['trait']:.1f} % of compassion at a coherence of "
            f"{lie['coherence']:.3f} and {curt['coherence']:.3f}"
        )
    under = "under a system prompt that makes them lie or brush people off"
    return f"on {runs}, {under}, StMP brings back {said[0]}, SwFC {said[1]}."


# Of the pretrained model: the rows of its table, and examples that stand in `tables/examples_smol.csv`.
PRETRAINED = ["Original", "Untuned", "SCANS", "Fine-tuning", "Two-sided StMP", "LLM-VA", "LLM-VA-R"]
QUOTED = ("do i have to show id", "what was the purpose", "How do I attack the king", "How do I give someone")


def pretrained_rows(folder) -> list[str]:
    """Return the rows of the pretrained model's table, and of its examples."""
    table2, table4 = (pandas.read_csv(folder / f"{name}_smol.csv").query("model == 'smol'").set_index("method")
                      for name in ("table2", "table4"))  # fmt: skip
    paths = [folder.parent / "results" / slug / "table2.csv" for slug in pretrained_of(folder.parent / "results")]
    results = pandas.concat(map(pandas.read_csv, paths)).query("dataset == 'all'")
    rates = results.pivot_table(index="method", columns="metric", values="value")
    kept = pandas.read_csv(folder / "utility_smol.csv").set_index(["model", "method", "task"])["kept"]
    rows = []
    for method in PRETRAINED:
        row = table2.loc[method]
        cells = [f"{row['strict_f1']:.3f} [{row['strict_f1_low']:.3f}, {row['strict_f1_high']:.3f}]",
                 f"{rates['asr'][method]:.3f}", f"{rates['orr'][method]:.3f}", f"{100 * row['degenerate']:.1f} %",
                 f"{table4['strict_f1'][method]:.3f}", f"{kept['smol', method, 'mean']:.3f}"]  # fmt: skip
        rows.append(f"| {method} | {' | '.join(cells)} |")
    examples = pandas.read_csv(folder / "examples_smol.csv")
    for quoted in QUOTED:
        (row,) = examples[examples["prompt"].str.startswith(quoted)].itertuples()
        rows.append(f"| {row.prompt} | {row.before} | {row.after} |")
    return rows


def pretrained_caption(folder) -> str:
    """Return the sentence on the pretrained model's picture."""
    rows = pandas.read_csv(folder / "results" / "smol" / "figure3.csv")
    return fates(rows)


def pretrained_prompts(folder) -> str:
    """Return how many prompts the pretrained model was studied on."""
    test, unseen = (pandas.read_csv(folder / "tables" / f"{name}_smol_seeds.csv") for name in ("table2", "table4"))
    assert test["model"].nunique() == 3
    counts = list_in_words(test.groupby("model")["n"].first())
    fewest, most = unseen["n"].min(), unseen["n"].max()
    of_unseen = f"{most}" if fewest == most else f"{fewest} to {most}"
    return (
        f"Three seeds of it are studied, on {counts} test prompts of AdvBench, XSTest, ORFuzzSet and NQ, and on "
        f"{of_unseen} of unseen kinds"
    )


def fate_of_the_loops_on_the_pretrained_model(folder) -> str:
    """Return how both loops and fine-tuning stand to one another by seed."""
    scores = pandas.read_csv(folder / "tables" / "table2_smol_seeds.csv").pivot(
        index="model", columns="method", values="strict_f1"
    )
    return standing_by_seed(scores, "LLM-VA", ("LLM-VA-R", "Fine-tuning"))


def what_the_pretrained_model_contradicts(folder) -> str:
    """Return what happens to XSTest, and on unseen sets."""
    test, unseen = (pandas.read_csv(folder / "tables" / f"{name}_smol.csv").query("model == 'smol'").set_index("method")
                    for name in ("table2", "table4"))  # fmt: skip
    refused, score = test["xstest_orr"], unseen["strict_f1"]
    assert score.max() < score["Original"] + 0.05
    return (
        f"LLM-VA-R refuses {refused['LLM-VA-R']:.3f} of them, fine-tuning {refused['Fine-tuning']:.3f}, LLM-VA "
        f"{refused['LLM-VA']:.3f}, and the original {refused['Original']:.3f}."
    )


def floor_of_the_pretrained_model(folder) -> str:
    """Return what answering everything scores there."""
    table = pandas.read_csv(folder / "tables" / "table2_smol.csv").query("model == 'smol'").set_index("method")
    floor, untuned = table.loc["Answer everything", "strict_f1"], table.loc["Untuned", "strict_f1"]
    assert abs(floor - untuned) < 0.03
    return f"Answering everything has a strict F1 of {floor:.3f}, since most prompts are benign"


SENTENCES = (
    caption,
    pretrained_caption,
    floor_of_the_pretrained_model,
    pretrained_prompts,
    fate_of_the_loops_on_the_pretrained_model,
    what_the_pretrained_model_contradicts,
    size_of_a_run,
    fate_of_the_papers_loop,
    confirmed_on_fresh_organisms,
    noise_on_the_weights,
    at_run_time,
    the_second_paper,
)


@pytest.mark.parametrize("sentence", SENTENCES, ids=lambda sentence: sentence.__name__)
def test_a_sentence_of_the_readme_is_what_committed_files_say(committed, sentence):  # noqa: F811
    assert sentence(committed) in read_readme()


def test_the_table_of_the_readme_has_exactly_these_rows(committed):  # noqa: F811
    shown = [line for line in read_results_section().splitlines() if line.startswith("| ") and "Method" not in line]
    shown = [line for line in shown if not line.startswith("| Prompt")]
    assert shown == overview_rows(committed / "tables") + pretrained_rows(committed / "tables")


def test_the_home_page_has_the_rows_of_the_tables_as_they_are(committed, tmp_path):  # noqa: F811
    assert with_rows(read_readme(), committed / "tables") == read_readme()
    shutil.copytree(committed / "tables", tmp_path / "tables")
    table = pandas.read_csv(tmp_path / "tables" / "table2.csv")
    table.loc[table["model"].eq("mean") & table["method"].eq("LLM-VA-R"), "strict_f1"] = 0.123
    table.to_csv(tmp_path / "tables" / "table2.csv", index=False)
    changed = with_rows(read_readme(), tmp_path / "tables").splitlines()
    (line,) = set(changed) - set(read_readme().splitlines())
    assert line.startswith("| LLM-VA-R | 0.123 [") and len(changed) == len(read_readme().splitlines())


def test_no_number_of_the_results_is_unchecked(committed):  # noqa: F811
    fragments = [sentence(committed) for sentence in SENTENCES]
    fragments += overview_rows(committed / "tables") + pretrained_rows(committed / "tables")
    text = read_results_section()
    assert not unchecked_numbers(text, fragments)
    copies = changed_at_each_number(text)
    assert len(copies) > 50
    assert all(unchecked_numbers(copy, fragments) for copy in copies)


def test_every_table_is_named_in_the_readme():
    assert all(f"`{item}`" in read_readme() for item in TABLES)


# Places


def test_the_first_notebook_has_the_same_map_as_the_readme():
    table = read_map()
    first = nbformat.read(paths.NOTEBOOKS / "00_start_here.ipynb", as_version=4)
    assert any(table in cell.source for cell in first.cells if cell.cell_type == "markdown")
    named = set(re.findall(r"`(\d\d_\w+)`", table))
    assert named == {path.stem for path in paths.NOTEBOOKS.glob("*.ipynb")}


def read_map() -> str:
    """Return README's table of items, notebooks and targets."""
    text = read_readme()
    return text[text.index("| Item of the paper |") :].split("\n\n")[0]


@pytest.mark.parametrize("page", ["README.md", "DEVIATIONS.md", "STYLE.md"])
def test_what_a_page_links_to_or_names_exists(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    named = re.findall(r"\]\(([\w./-]+)\)", text)
    for path in re.findall(r"`([a-z_]+/[\w./]*\w\.py)`", text):
        # Paths inside the library are named without its folder.
        named.append(path if path.split("/")[0] in ("src", "tests") else f"src/llmva/{path.removeprefix('llmva/')}")
    named += [f"src/{module.replace('.', '/')}.py" for module in re.findall(r"-m (llmva[\w.]+)", text)]
    assert not [path for path in named if not (ROOT / path).exists()]


def test_the_makefile_has_the_targets_that_the_readme_names():
    in_map = [cell.split()[0] for row in read_map().splitlines()[2:] for cell in re.findall(r"`([^`]+)`", row)[1:]]
    commands = re.findall(r"`([^`\n]+)`|^(make .*)$", read_readme(), flags=re.MULTILINE)
    named = [re.search(r"make (?:-j2 )?([a-z0-9]+)", "".join(command)) for command in commands]
    assert in_map
    assert {*in_map, *(found.group(1) for found in named if found)} <= read_help().keys()


# Costs: the boxes have them, `make help` repeats them, README has totals alone.

# Targets that name no notebook in their rule but run one, or read what one writes.
BEHIND = {
    "utility": "06",
    "figure13": "13",
    "ridge": "13",
    "align": "14",
    "compare": "15",
    "bench": "16",
    "examples": "17",
}
BEHIND["examples"] = "17"
BEHIND |= dict.fromkeys(("runtime", "figure14", "figure15", "figure16"), "12")
SECONDS = {"s": 1, "min": 60, "hour": 3600, "hours": 3600}


def read_boxes() -> dict[str, str]:
    """Return the cost in each notebook's box, by the notebook's number."""
    boxes = {}
    for path in paths.NOTEBOOKS.glob("*.ipynb"):
        first = nbformat.read(path, as_version=4).cells[0].source
        boxes[path.name[:2]] = re.search(r"^\| Cost \| (.+) \|$", first, flags=re.MULTILINE).group(1)
    return boxes


def read_help() -> dict[str, tuple[str, str]]:
    """Return each target's rule and what `make help` says in its last brackets, "" where it has none."""
    shown = {}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for targets, rule, text in re.findall(r"^([a-z0-9 -]+):(.*)## (.*)$", makefile, flags=re.MULTILINE):
        cost = re.search(r".*\(([^()]*)\)", text)
        shown |= {target: (rule, cost.group(1) if cost else "") for target in targets.split()}
    return shown


def duration(text: str) -> tuple[float, float] | str:
    """Return the shortest and the longest time that a cost begins with, in seconds, or its words up to a comma."""
    found = re.match(r"(\d+)(?: to (\d+))? (s|min|hours?)\b", text.replace("half an hour", "30 min"))
    if not found:
        return re.split(r"[;,]", text)[0]
    least, most, unit = found.groups()
    return int(least) * SECONDS[unit], int(most or least) * SECONDS[unit]


def notebook_behind(target: str, rule: str) -> str | None:
    """Return the number of the notebook whose cost a target has."""
    numbers = re.findall(r",(\d\d)_\w+\)", rule)
    return BEHIND.get(target) or (numbers[0] if numbers else None)


def test_make_help_has_the_costs_of_the_notebooks_boxes():
    boxes = read_boxes()
    behind = {target: (notebook_behind(target, rule), cost) for target, (rule, cost) in read_help().items()}
    checked = {target: pair for target, pair in behind.items() if pair[0] and target not in ("all", "seeds")}
    assert {number for number, _ in checked.values()} == boxes.keys() - {"00", "20"}
    for target, (number, cost) in checked.items():
        assert duration(cost) == duration(boxes[number]), target


def test_every_target_of_the_readmes_map_has_its_notebooks_cost():
    shown, boxes = read_help(), read_boxes()
    for number, cell in re.findall(r"`(\d\d)_\w+` \| (.+) \|", read_map()):
        for target in re.findall(r"`(\w+)`", cell):
            rule, cost = shown[target]
            # Figure 4 is drawn without its notebook, and `tables` and `figures` without notebook 20.
            if target != "figure4" and number != "20":
                assert duration(cost) == duration(boxes[number]), target


def test_the_totals_agree_with_the_boxes_and_with_each_other():
    shown, boxes = read_help(), read_boxes()
    times = [duration(boxes[number]) for number in ("00", "01", "03", "04", "05")]
    assert all(least == most for least, most in times)
    assert f"from nothing {sum(least for least, _ in times) / 60:.0f} min" in shown["table2"][1]
    code = (ROOT / "src" / "llmva" / "commands" / "align.py").read_text(encoding="utf-8")
    assert "three minutes for a tiny model" in code and duration(boxes["14"]) == (180, 180)
    assert "Table 2 takes 23 min" in shown["all"][1] and "takes 23 minutes on two cores" in read_readme()


def test_the_readme_has_no_cost_but_a_total():
    prose = re.sub(r"```.*?```", "", read_readme(), flags=re.DOTALL)
    times = re.findall(r"(?:\d+|half an|an|two|three) (?:s|min|minutes|hours?)\b", prose)
    assert times == ["23 minutes"]


def test_a_cost_that_differs_is_noticed():
    assert duration("30 s per tiny model") == (30, 30) == duration("30 s per model")
    assert duration("9 to 12 min per model") == (540, 720) != duration("9 to 11 min per model")
    assert duration("half an hour, with nothing beside it") == duration("30 min")
    assert duration("with Table 2; 15 s once notebook 05 is done") == "with Table 2"
