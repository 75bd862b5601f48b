"""What finished stages hold, read back: the other half of `llmva.study.stages`."""

import json

import numpy
import pandas
from safetensors.numpy import load_file

from llmva.core.store import Stage
from llmva.study.study import Study


def read_activations_of(stage: Stage) -> dict[str, numpy.ndarray]:
    """Return the activations that `observe_original` wrote, by sublayer and `final`."""
    return load_file(stage / "activations.safetensors")


def chosen_l_select(stage: Stage) -> dict[str, int]:
    """Return `l_select` and `sublayers` (2L) of a finished layer selection."""
    return json.loads((stage / "choice.json").read_text())


def read_verdicts(stage: Stage) -> pandas.DataFrame:
    """Return a stage's verdicts."""
    return pandas.read_csv(stage / "verdicts.csv", keep_default_na=False)


def read_labelled_verdicts(study: Study, stage: Stage) -> pandas.DataFrame:
    """Return a stage's verdicts with the prompts' set and label, in the stage's order."""
    labels = study.pool[["id", "dataset", "label"]]
    return read_verdicts(stage).merge(labels, on="id", how="left", validate="one_to_one")


def read_outcomes(stages: dict[str, Stage], part: str) -> dict[str, pandas.DataFrame]:
    """Return the verdicts of evaluated methods and of their variants on the `test` or the `transfer` prompts.

    Parameters
    ----------
    stages : dict of str to Stage
        As `evaluation.evaluate_all` gives them.
    """
    tables = {}
    for stage in stages.values():
        outcomes = pandas.read_csv(stage / "outcomes.csv", keep_default_na=False)
        for method, rows in outcomes[outcomes["part"] == part].groupby("method", sort=False):
            tables[method] = rows.drop(columns=["method", "part"]).reset_index(drop=True)
    return tables


def read_test_rows(stages: dict[str, Stage]) -> dict[str, pandas.DataFrame]:
    """Return, by method, the test prompts' outcomes with the responses."""
    tables = {}
    for stage in stages.values():
        said = pandas.read_csv(stage / "responses.csv", dtype=str, keep_default_na=False)
        for method, rows in read_outcomes({"": stage}, "test").items():
            own = said[said["part"].eq("test") & said["method"].eq(method)]
            tables[method] = rows.merge(own[["id", "response"]], on="id", validate="one_to_one")
    return tables


def read_utility(stages: dict[str, Stage]) -> pandas.DataFrame:
    """Return the utility of evaluated methods: method, task, metric, value, n."""
    return pandas.concat([pandas.read_csv(stage / "utility.csv") for stage in stages.values()], ignore_index=True)


def read_settings(stages: dict[str, Stage]) -> pandas.DataFrame:
    """Return what was chosen on validation: method, its setting in words, and the number of trials."""
    rows = []
    for stage in stages.values():
        settings = json.loads((stage / "settings.json").read_text())
        trials = len(pandas.read_csv(stage / "trials.csv")) if (stage / "trials.csv").is_file() else None
        rows += [(name, _in_words(setting), trials) for name, setting in settings.items()]
    return pandas.DataFrame(rows, columns=["method", "setting", "trials"])


def _in_words(setting: dict) -> str:
    return ", ".join(f"{key} {value}" for key, value in setting.items())
