"""What finished stages hold, read back: the other half of `llmva.stages`."""

import json

import numpy
import pandas
from safetensors.numpy import load_file

from llmva.alignment import Observation, read_observation
from llmva.edits import EditLog
from llmva.store import Stage
from llmva.study import Study


def original_observation(stage: Stage) -> Observation:
    """Return the observation that `observe_original` wrote."""
    return read_observation(stage)


def read_activations_of(stage: Stage) -> dict[str, numpy.ndarray]:
    """Return the activations that `observe_original` wrote, by sublayer and `final`."""
    return load_file(stage / "activations.safetensors")


def chosen_l_select(stage: Stage) -> dict[str, int]:
    """Return `l_select` and `sublayers` (2L) of a finished layer selection."""
    return json.loads((stage / "choice.json").read_text())


def read_log(stage: Stage) -> tuple[EditLog, dict]:
    """Return a finished alignment's edit log and its choice: best iteration, L_select, why it stopped."""
    return EditLog.load(stage / "edit_log.safetensors"), json.loads((stage / "choice.json").read_text())


def read_setting(stage: Stage) -> dict:
    """Return the setting that a method was evaluated with."""
    return json.loads((stage / "setting.json").read_text())


def read_verdicts(stage: Stage) -> pandas.DataFrame:
    """Return a stage's verdicts."""
    return pandas.read_csv(stage / "verdicts.csv", keep_default_na=False)


def read_labelled_verdicts(study: Study, stage: Stage) -> pandas.DataFrame:
    """Return a stage's verdicts with the prompts' set and label, in the stage's order."""
    labels = study.pool[["id", "dataset", "label"]]
    return read_verdicts(stage).merge(labels, on="id", how="left", validate="one_to_one")


def read_test_rows(study: Study, stage: Stage) -> pandas.DataFrame:
    """Return the test prompts with a method's responses and verdicts."""
    responses = pandas.read_csv(stage / "responses.csv", dtype=str, keep_default_na=False)
    verdicts = read_verdicts(stage)[["id", "guard_verdict", "verdict"]]
    return study.test.merge(responses, on="id", validate="one_to_one").merge(verdicts, on="id", validate="one_to_one")
