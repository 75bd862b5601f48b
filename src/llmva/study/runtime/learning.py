"""What a steering learns: one response to each training scenario from either side, and a boundary at every layer."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy
import pandas
from safetensors.numpy import load_file, save_file

from llmva.core.paths import write_texts
from llmva.core.provenance import random_generator
from llmva.core.store import Stage
from llmva.models.activations import Capture
from llmva.models.reading import read_activations
from llmva.prompts.threats import ALIGNED, MALICIOUS, SIDES, chats_of
from llmva.steering.base import residuals_of
from llmva.steering.runtime.boundary import Boundary, fit_boundary, mean_difference, place_boundary
from llmva.study.runtime.study import RuntimeStudy

# The direction of the papers, and the two controls.
LOGISTIC, MEAN_DIFFERENCE, RANDOM = DIRECTIONS = ("logistic", "mean difference", "random")


def learn_boundaries(study: RuntimeStudy) -> Stage:
    """Let the model answer the training scenarios on both sides, and find every layer's boundary of each threat.

    Writes `responses.csv`: threat, side, prompt, response, trait; `boundaries.safetensors`: directions by threat, kind
    and layer, with `boundaries.json` for their numbers; and `layers.csv`: by threat and layer, the share of pooled
    responses on their right side, and the cosine of the direction with the mean difference.
    """

    def compute(folder: Path) -> None:
        study.require_fit()
        responses, boundaries, layers = [], {}, []
        for name in study.threats:
            pooled = {}
            for side in SIDES:
                rows, pooled[side] = _respond(study, name, side)
                responses.append(rows)
            for layer in range(1, len(study.chat_model.blocks) + 1):
                found = _find_boundaries(study, layer, *(pooled[side][layer] for side in SIDES))
                boundaries |= {(name, kind, layer): boundary for kind, boundary in found.items()}
                layers.append({"threat": name, "layer": layer, **_describe(found, layer, pooled)})
        write_texts(folder / "responses.csv", pandas.concat(responses))
        pandas.DataFrame(layers).to_csv(folder / "layers.csv", index=False)
        save_boundaries(folder, boundaries)

    return study.stage("12_boundaries", compute, version=1)


def save_boundaries(folder: Path, boundaries: dict[tuple[str, str, int], Boundary]) -> None:
    """Write boundaries by threat, kind of direction and layer."""
    names = {"/".join(map(str, key)): boundary for key, boundary in boundaries.items()}
    save_file({name: boundary.direction for name, boundary in names.items()}, folder / "boundaries.safetensors")
    numbers = {
        name: {field: value for field, value in asdict(boundary).items() if field != "direction"}
        for name, boundary in names.items()
    }
    (folder / "boundaries.json").write_text(json.dumps(numbers, indent=1) + "\n")


def read_boundaries(stage: Stage) -> dict[tuple[str, str, int], Boundary]:
    """Return the boundaries that `learn_boundaries` wrote, by threat, kind of direction and layer."""
    numbers = json.loads((stage / "boundaries.json").read_text())
    directions = load_file(stage / "boundaries.safetensors")
    boundaries = {}
    for name, values in numbers.items():
        threat, kind, layer = name.split("/")
        boundaries[threat, kind, int(layer)] = Boundary(directions[name], **values)
    return boundaries


def _respond(study: RuntimeStudy, name: str, side: str) -> tuple[pandas.DataFrame, dict[int, numpy.ndarray]]:
    rows = study.threats[name].of_split("train")
    chats = chats_of(rows, side)
    replies = study.respond(chats)
    capture = Capture(outputs=False, blocks=True, positions="mean")
    options = {"batch_size": study.params.generation.batch_size, "tokens": "reply"}
    pooled = residuals_of(read_activations(study.chat_model, chats, replies, capture=capture, **options))
    table = rows[["prompt", "answer"]].assign(threat=name, side=side, response=replies)
    table["trait"] = study.judge(rows, replies, name)
    return table[["threat", "side", "prompt", "response", "trait"]], pooled


def _find_boundaries(
    study: RuntimeStudy, layer: int, positive: numpy.ndarray, negative: numpy.ndarray
) -> dict[str, Boundary]:
    drawn = random_generator(study.params.seed, "runtime", "random direction", str(layer))
    directions = {
        MEAN_DIFFERENCE: mean_difference(positive, negative),
        RANDOM: drawn.standard_normal(positive.shape[1]),
    }
    placed = {kind: place_boundary(vector, positive, negative) for kind, vector in directions.items()}
    return {LOGISTIC: fit_boundary(positive, negative), **placed}


def _describe(found: dict[str, Boundary], layer: int, pooled: dict[str, dict[int, numpy.ndarray]]) -> dict[str, float]:
    boundary = found[LOGISTIC]
    above, below = (pooled[side][layer] @ boundary.direction >= boundary.threshold for side in (ALIGNED, MALICIOUS))
    cosine = float(boundary.direction @ found[MEAN_DIFFERENCE].direction)
    return {"accuracy": (above.mean() + (~below).mean()) / 2, "cosine": cosine, "gap": boundary.gap}
