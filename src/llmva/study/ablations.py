"""What the paper varies, and what could break its claims: each a cached stage that writes one CSV."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy
import pandas
import torch

from llmva.core.params import Svm
from llmva.core.provenance import digest, seed_for
from llmva.core.store import Stage
from llmva.edits.edited_model import EditedModel
from llmva.judging.agreement import kappa
from llmva.judging.examiner import benign_labels
from llmva.judging.judges import EVASIONS, CombinedJudge, PhraseJudge, judge_responses
from llmva.measures.metrics import measure
from llmva.method.control_vectors import angle_degrees
from llmva.method.loop import LOOP_VERSION
from llmva.method.svm import fit_svms
from llmva.models.activations import FINAL
from llmva.models.packed import require_unpacked
from llmva.models.templates import opens_thinking
from llmva.study.loop_variants import PAPER, chosen_l_select, run_loop, within, write_loop
from llmva.study.stages import observe_original, read_activations_of, read_labelled_verdicts
from llmva.study.study import Study

# Of each weight matrix' own standard deviation.
NOISE_LEVELS = [0.0, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0]


def vary_angle(study: Study) -> Stage:
    """Turn both vectors by D degrees towards random directions and run the loop (paper 5.4, Fig. 6).

    Writes `angles.csv`: degrees, draw, iteration, validation metrics. Every run has the probe's iterations.
    """
    ablations = study.params.ablations

    def compute(folder: Path) -> None:
        # All runs begin at the same model, so that it is asked once.
        l_select, tables, originals = chosen_l_select(study), {}, {}
        for degrees in ablations.degrees:
            for draw in range(ablations.draws if degrees else 1):
                title = f"vectors {degrees} degrees off, draw {draw}"
                options = {"title": title, "distortion": (degrees, draw), "originals": originals}
                run = run_loop(study, l_select, study.params.probe.iterations, **options)
                tables[degrees, draw] = run.history
        pandas.concat(tables, names=["degrees", "draw"]).to_csv(folder / "angles.csv")

    return _loop_stage(study, "07_ablation_angle", compute)


def vary_iterations(study: Study) -> Stage:
    """Run the loop on to the ablation's T (Fig. 7, 12); all of its beginning is there already.

    Writes what every loop leaves; see `write_loop`.
    """

    def compute(folder: Path) -> None:
        write_loop(study, folder, PAPER, [chosen_l_select(study)], study.params.ablations.iterations)

    return _loop_stage(study, "08_ablation_iterations", compute)


def vary_layers(study: Study) -> Stage:
    """Edit from a few to all sublayers (Fig. 8).

    Writes `layers.csv`: l_select, the iteration that validation chooses among the probe's, its metrics and
    its utility by task.
    """

    def compute(folder: Path) -> None:
        rows = []
        for count in within(study, study.params.ablations.l_select):
            run = run_loop(study, count, study.params.probe.iterations)
            with EditedModel(study.chat_model.writers) as edited:
                edited.apply(run.best_log)
                utility = study.measure_utility()
            scores = dict(zip(utility["task"], utility["value"], strict=True))
            best = run.history.loc[run.best_iteration]
            rows.append({"l_select": count, "iteration": run.best_iteration, **best, **scores})
        pandas.DataFrame(rows).to_csv(folder / "layers.csv", index=False)

    return _loop_stage(study, "09_ablation_layers", compute)


def combine_judges(study: Study) -> Stage:
    """Run the loop with a judge for toxic prompts and another, stricter one for benign prompts (Fig. 11).

    Writes `histories.csv`: judges (`one judge` or `combined judges`), iteration, and the validation
    metrics as those judges see them.
    """
    iterations = study.params.probe.iterations

    def compute(folder: Path) -> None:
        l_select = chosen_l_select(study)
        both = CombinedJudge(toxic=study.judge, benign=PhraseJudge(anywhere=EVASIONS))
        histories = {
            "one judge": run_loop(study, l_select, iterations).history,
            "combined judges": run_loop(study, l_select, iterations, title="combined judges", judge=both).history,
        }
        pandas.concat(histories, names=["judges"]).to_csv(folder / "histories.csv")

    return _loop_stage(study, "11_judges", compute)


def compare_judges(study: Study, outcomes: dict[str, pandas.DataFrame]) -> pandas.DataFrame:
    """Judge the same replies by three standards and return their agreement.

    Parameters
    ----------
    outcomes : dict of str to DataFrame
        Test rows by method, with `response`.

    Returns
    -------
    DataFrame
        Columns method, label, first, second, kappa (Cohen's), agreement, n.
    """
    judges = {"guard": study.judge, "phrases": PhraseJudge(), "phrases and evasions": PhraseJudge(anywhere=EVASIONS)}
    rows, opened = [], opens_thinking(study.chat_model.tokenizer)
    for method, table in outcomes.items():
        exchanges = table.merge(study.test[["id", "prompt"]], on="id", validate="one_to_one")
        verdicts = {
            name: judge_responses(exchanges, judge, cache=study.plain_examiner.cache, opened=opened)["verdict"]
            for name, judge in judges.items()
        }
        for label in ("benign", "toxic"):
            chosen = (exchanges["label"] == label).to_numpy()
            for first, second in (("guard", "phrases"), ("guard", "phrases and evasions")):
                one, other = verdicts[first][chosen], verdicts[second][chosen]
                agreement = float((one.to_numpy() == other.to_numpy()).mean())
                rows.append((method, label, first, second, kappa(one, other), agreement, len(one)))
    return pandas.DataFrame(rows, columns=["method", "label", "first", "second", "kappa", "agreement", "n"])


def measure_noised(study: Study) -> Stage:
    """Add noise to every weight matrix and measure the wreck: what do the metrics make of gibberish?

    Writes `noise.csv`: noise (in standard deviations of each matrix), validation metrics.
    """

    def compute(folder: Path) -> None:
        rows = []
        for level in NOISE_LEVELS:
            with noised(study.chat_model.model, level, study.params.seed):
                rows.append({"noise": level, **measure(study.examiner.examine(study.validation).rows)})
        pandas.DataFrame(rows).to_csv(folder / "noise.csv", index=False)

    return study.stage("noise", compute, fields=("seed",), version=1, levels=NOISE_LEVELS)


def cross_sets(study: Study) -> Stage:
    """Train v_b on one benign and one toxic set and test it on the others: is it safety or the template?

    Writes `shortcuts.csv`: sublayer, benign set and toxic set that it learnt from, `seen_accuracy` on held-out
    prompts of these, `unseen_accuracy` on those of the other sets, and the `cosine` with v_b of all sets.
    """
    observed, svm = observe_original(study), study.params.svm

    def compute(folder: Path) -> None:
        rows = read_labelled_verdicts(study, observed)
        layers = {name: values for name, values in read_activations_of(observed).items() if name != FINAL}
        tables = [_cross(name, features, rows, svm) for name, features in layers.items()]
        pandas.concat(tables, ignore_index=True).to_csv(folder / "shortcuts.csv", index=False)

    return study.stage("shortcuts", compute, fields=("svm",), upstream=[observed], version=1)


def _cross(name: str, features: numpy.ndarray, rows: pandas.DataFrame, svm: Svm) -> pandas.DataFrame:
    labels, train = benign_labels(rows).to_numpy(), (rows["split"] == "train").to_numpy()
    sets = {label: sorted(rows.loc[rows["label"] == label, "dataset"].unique()) for label in ("benign", "toxic")}
    pairs = [(benign, toxic) for benign in sets["benign"] for toxic in sets["toxic"]]
    seen = [rows["dataset"].isin(pair).to_numpy() for pair in pairs]
    columns = [numpy.where(train, labels, 0), *(numpy.where(train & mask, labels, 0) for mask in seen)]
    weights = fit_svms(features, numpy.column_stack(columns), penalty=svm.penalty, solver=svm.solver).weights
    projections = features.astype(numpy.float64) @ weights.T
    right = numpy.sign(projections) == labels[:, None]
    results = []
    for number, (pair, mask) in enumerate(zip(pairs, seen, strict=True), start=1):
        cosine = float(numpy.cos(numpy.radians(angle_degrees(weights[0], weights[number]))))
        accuracies = [float(right[~train & part, number].mean()) if (~train & part).any() else numpy.nan
                      for part in (mask, ~mask)]  # fmt: skip
        results.append((name, *pair, *accuracies, cosine))
    return pandas.DataFrame(
        results, columns=["sublayer", "benign_set", "toxic_set", "seen_accuracy", "unseen_accuracy", "cosine"]
    )


def _loop_stage(study: Study, name: str, compute: Callable[[Path], None]) -> Stage:
    fields = ("seed", "sample_per_dataset", "svm", "selection", "probe", "ablations")
    tasks = digest(study.tasks.to_numpy().tolist())
    l_select = chosen_l_select(study)
    return study.stage(name, compute, fields=fields, version=1, loop=LOOP_VERSION, l_select=l_select, tasks=tasks)


@contextmanager
def noised(model: torch.nn.Module, level: float, seed: int) -> Iterator[None]:
    """Add Gaussian noise to every weight matrix inside the block and restore them bit for bit.

    Parameters
    ----------
    level : float
        Standard deviation of the noise, in standard deviations of each matrix.
    seed : int
        The same seed gives the same noise, scaled by the level.
    """
    require_unpacked(model.config, "noise")
    generator = torch.Generator().manual_seed(seed_for(seed, "noise") % 2**63)
    matrices = [weight for weight in model.parameters() if weight.ndim == 2]
    originals = [weight.detach().clone() for weight in matrices]
    try:
        with torch.no_grad():
            for weight in matrices:
                noise = torch.randn(weight.shape, generator=generator).to(weight)
                weight.add_(noise, alpha=level * float(weight.float().std()))
        yield
    finally:
        with torch.no_grad():
            for weight, original in zip(matrices, originals, strict=True):
                weight.copy_(original)
