"""How the angle of v_a and v_b depends on the margin of the SVMs that they come from."""

from pathlib import Path

import numpy
import pandas

from llmva.core.progress import progress_bar
from llmva.core.store import Stage
from llmva.judging.examiner import Examination, benign_labels
from llmva.method.iteration import feature_size, fit_all
from llmva.models.activations import FINAL, Activations
from llmva.study.stages import BAND, permute_labels, read_activations_of, read_labelled_verdicts
from llmva.study.study import Study

# What features are divided by, and C, beside the study's own: from nearly hard margins to soft ones. LLM-VA-R's is the
# second of these.
MARGINS = (("length", 1.0), ("length", 0.1), ("length", 0.01))


def compare_margins(study: Study, observed: Stage) -> Stage:
    """Fit every sublayer's vectors with softer margins than the study's, each beside a null of its own.

    Writes `margins.csv`: feature_scale, penalty, sublayer; the angle, accuracy_benign and accuracy_answer on
    validation, v_b's also by set as `<set>_accuracy`; and of as many permutations as `null_draws` says angle_null_low,
    angle_null_mean and angle_null_high.
    """
    svm = study.params.svm

    def compute(folder: Path) -> None:
        rows, outputs = read_labelled_verdicts(study, observed), read_activations_of(observed)
        del outputs[FINAL]
        margins = [("raw", svm.penalty), *MARGINS]
        tables = {margin: _margin(study, rows, outputs, *margin) for margin in progress_bar("margins", margins)}
        table = pandas.concat(tables, names=["feature_scale", "penalty", "sublayer"])
        table.to_csv(folder / "margins.csv")

    more = {"upstream": [observed], "penalty": svm.penalty, "margins": MARGINS}
    return study.stage("01_margins", compute, fields=("seed", "null_draws"), version=2, **more)


def _margin(
    study: Study, rows: pandas.DataFrame, outputs: dict[str, numpy.ndarray], feature_scale: str, penalty: float
) -> pandas.DataFrame:
    """Return a row per sublayer: the angle and accuracies of its vectors, and the angles of permuted labels."""
    settings = study.settings(1, 1, feature_scale=feature_scale, penalty=penalty).observation
    examined = Examination(rows, Activations(outputs, inputs={}, blocks={}, lengths=numpy.ones(len(rows), int)))
    found, _ = fit_all(examined, settings)
    train, held_out = ((rows["split"] == split).to_numpy() for split in ("train", "validation"))
    scaled = {name: values / feature_size(values[train], feature_scale) for name, values in outputs.items()}
    null = permute_labels(study, rows, scaled, penalty)
    low, high = null.quantile(BAND).to_numpy()
    columns = {"angle": "angle", "accuracy_benign": "benign_accuracy", "accuracy_answer": "answer_accuracy"}
    table = pandas.DataFrame(
        {column: {name: getattr(pair, field) for name, pair in found.items()} for column, field in columns.items()}
    )
    benign = benign_labels(rows).to_numpy()
    for dataset in rows.loc[held_out, "dataset"].unique():
        of_set = held_out & rows["dataset"].eq(dataset).to_numpy()
        sides = {name: outputs[name][of_set] @ pair.benign > 0 for name, pair in found.items()}
        table[f"{dataset}_accuracy"] = {name: (side == (benign[of_set] > 0)).mean() for name, side in sides.items()}
    return table.assign(angle_null_mean=null.mean(), angle_null_low=low, angle_null_high=high)
