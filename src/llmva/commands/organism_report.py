"""What the organisms turned out to be: `python -m llmva.commands.organism_report [slug ...]`.

A quick look on small samples, judged by the organisms' own openers; a study measures with the guard.
"""

import functools
from pathlib import Path

import numpy
import pandas

from llmva.core.errors import OneLineParser, command
from llmva.core.progress import progress_bar
from llmva.core.store import open_stage
from llmva.core.vocabulary import SAFETY_SETS
from llmva.engines.greedy import respond
from llmva.measures.utility import measure_utility
from llmva.method.control_vectors import find_control_vectors
from llmva.models.activations import FINAL, Activations, Capture
from llmva.models.chat_model import load_model
from llmva.organisms.build import build_organism
from llmva.organisms.families import FAMILIES, GUARD, parse_slug
from llmva.organisms.replies import is_refusal
from llmva.prompts.pools import draw_candidates
from llmva.prompts.sets import read_candidates
from llmva.prompts.tasks import read_tasks

SAMPLE = 200
TRAINING_SHARE = 0.64
SHORT = {"seval_attack": "ASR attack", "seval_risk": "ASR risk", "orfuzzset": "ORR orfuzz", "nq": "ORR nq"}


def describe_organism(slug: str) -> dict[str, float | str]:
    """Return one row: training seconds and loss, ASR and ORR per set, utility, and the geometry of v_a and v_b.

    Utility is F1, for gsm accuracy. The angle (degrees) and the accuracy of v_b on held-out prompts are means over
    sublayers; the lowest accuracy of a sublayer stands beside its mean.
    """
    folder = build_organism(slug)
    facts = open_stage(folder, fix="build it").manifest["facts"]
    row = {"model": slug, "train s": facts["training_seconds"], "loss": facts["final_loss"]}
    chat_model = load_model(str(folder))
    answer = functools.partial(respond, chat_model, max_new_tokens=40, batch_size=128)
    prompts = draw_candidates(read_candidates(folder / "data"), SAMPLE, seed=0)
    responses = answer(prompts["prompt"].tolist(), capture=Capture())
    answered = numpy.array([not is_refusal(text) for text in responses.texts])
    benign = (prompts["label"] == "benign").to_numpy()
    errors = pandas.Series(answered != benign).groupby(prompts["dataset"].to_numpy()).mean()
    row |= {SHORT[name]: errors[name] for name in SAFETY_SETS}
    utility = measure_utility(chat_model, read_tasks(folder / "data"), batch_size=128, max_new_tokens=40)
    row |= dict(zip(utility["task"], utility["value"], strict=True))
    return row | {"facts": _known_facts(folder, answer)} | _geometry(responses.activations, benign, answered)


@command
def main() -> None:
    """Build what is missing and print the table."""
    parser = OneLineParser(prog="python -m llmva.commands.organism_report", description=__doc__)
    parser.add_argument("slugs", nargs="*", metavar="slug", help="tiny-<family>[-s<seed>]; default: the six families")
    slugs = parser.parse_args().slugs or [f"tiny-{family}" for family in FAMILIES]
    # Notebook 12 describes the persona organisms.
    slugs = [slug for slug in slugs if parse_slug(slug).kind == "tiny" and slug != GUARD]
    if not slugs:
        return
    title = "organisms" if len(slugs) > 1 else None
    rows = [describe_organism(slug) for slug in progress_bar(title, slugs, leave=True)]
    print(f"Original organisms, {SAMPLE} prompts per set, judged by openers; angle and v_b are means over sublayers.\n")
    print(pandas.DataFrame(rows).set_index("model").round(3).T.to_markdown())


def _known_facts(folder: Path, answer) -> float:
    facts = pandas.read_csv(folder / "data" / "utility" / "facts.csv", dtype=str, keep_default_na=False)
    replies = answer(facts["prompt"].tolist()).texts
    return float(numpy.mean([text.startswith(value) for text, value in zip(replies, facts["answer"], strict=True)]))


def _geometry(activations: Activations, benign: numpy.ndarray, answered: numpy.ndarray) -> dict[str, float]:
    labels = [numpy.where(flags, 1, -1) for flags in (benign, answered)]
    order = numpy.random.default_rng(0).permutation(len(benign))
    fitting, held_out = numpy.split(order, [round(TRAINING_SHARE * len(order))])
    vectors = [
        find_control_vectors(
            features[fitting],
            *(column[fitting] for column in labels),
            validation=(features[held_out], *(column[held_out] for column in labels)),
        )
        for name, features in activations.outputs.items()
        if name != FINAL
    ]
    accuracies = [fit.benign_accuracy for fit in vectors]
    return {
        "angle": float(numpy.nanmean([fit.angle for fit in vectors])),
        "v_b accuracy": float(numpy.mean(accuracies)),
        "lowest": min(accuracies),
    }


if __name__ == "__main__":
    main()
