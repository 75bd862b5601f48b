"""Every layer, strength and position of every method on validation scenarios, and the operating points."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy
import pandas

from llmva.core.progress import progress_bar
from llmva.core.store import Stage
from llmva.measures.coherence import coherence, mean_repetition
from llmva.prompts.threats import ALIGNED, MALICIOUS, SIDES, chats_of
from llmva.steering.runtime.boundary import Boundary
from llmva.steering.runtime.steering import RuntimeSteering
from llmva.steering.runtime.updates import GATED
from llmva.study.runtime.learning import LOGISTIC, MEAN_DIFFERENCE, RANDOM, learn_boundaries, read_boundaries
from llmva.study.runtime.study import RuntimeStudy
from llmva.study.side_by_side import compute_ahead

POSITIONS = ("all", "response")
ALWAYS = "always"


@dataclass(frozen=True)
class Cell:
    """One steering that is tried: a method or a control of it, where, and how strongly.

    Attributes
    ----------
    method, position, layer, alpha
        As in `RuntimeSteering`.
    control : str
        Empty; or `random` or `mean difference`, another direction; or `always`, the gate left open.
    """

    method: str
    control: str
    position: str
    layer: int
    alpha: float

    @property
    def row(self) -> str:
        """The name of its row in tables."""
        return f"{self.method} ({CONTROLS[self.control]})" if self.control else self.method

    def steering(self, threat: str, boundaries: dict[tuple[str, str, int], Boundary]) -> RuntimeSteering:
        """Return what steers against a threat."""
        kind = self.control if self.control in (RANDOM, MEAN_DIFFERENCE) else LOGISTIC
        boundary = boundaries[threat, kind, self.layer]
        return RuntimeSteering(
            boundary, self.method, self.alpha, self.layer, self.position, always=self.control == ALWAYS
        )


# Controls and their names in print.
CONTROLS = {RANDOM: "random direction", MEAN_DIFFERENCE: "mean difference", ALWAYS: "gate always on"}


def sweep_threats(study: RuntimeStudy) -> dict[str, Stage]:
    """Try every cell against every threat, side by side where there are several processes; see `sweep_threat`."""
    learn_boundaries(study)
    compute_ahead(study, [partial(sweep_threat, threat=threat) for threat in study.threats])
    return {threat: sweep_threat(study, threat) for threat in study.threats}


def sweep_threat(study: RuntimeStudy, threat: str) -> Stage:
    """Try every cell on a threat's validation scenarios.

    Writes `cells.csv`: the fields of `Cell`, and of each trait, coherence and repetition, and the two unsteered sides
    first; see `choose_points`.
    """

    learnt = learn_boundaries(study)

    def compute(folder: Path) -> None:
        rows = study.threats[threat].of_split("validation")
        boundaries, unsteered = read_boundaries(learnt), {side: study.respond(chats_of(rows, side)) for side in SIDES}
        said = [({"method": side}, unsteered[side]) for side in SIDES]
        malicious = chats_of(rows, MALICIOUS)
        for cell in progress_bar(f"steering against {threat}", list(list_cells(study))):
            with cell.steering(threat, boundaries).applied(study.chat_model):
                said.append((asdict(cell), study.respond(malicious)))
        losses = study.coherence.losses(chats_of(rows, ALIGNED), unsteered[ALIGNED])
        scored = [{**names, **score(study, threat, rows, replies, losses)} for names, replies in said]
        pandas.DataFrame(scored).to_csv(folder / "cells.csv", index=False)

    fields = ("layers", "alphas")
    return study.stage(f"12_sweeps/{threat}", compute, version=1, fields=fields, upstream=[learnt], threat=threat)


def list_cells(study: RuntimeStudy) -> Iterator[Cell]:
    """Yield what is tried: every method at every position, and its controls at all tokens."""
    for method, alphas in study.params.alphas.items():
        controls = [RANDOM, MEAN_DIFFERENCE, *([ALWAYS] if method in GATED else [])]
        kinds = [("", position) for position in POSITIONS] + [(control, POSITIONS[0]) for control in controls]
        for control, position in kinds:
            for layer in study.layers:
                for alpha in alphas:
                    yield Cell(method, control, position, layer, float(alpha))


def score(
    study: RuntimeStudy, threat: str, rows: pandas.DataFrame, replies: list[str], aligned_losses: numpy.ndarray
) -> dict[str, float]:
    """Return the trait's share among the judged, coherence and repetition of replies to scenarios."""
    losses = study.coherence.losses(chats_of(rows, ALIGNED), replies)
    return {
        "trait": float(numpy.nanmean(study.judge(rows, replies, threat))),
        "coherence": coherence(losses, aligned_losses),
        "repetition": mean_repetition(replies),
    }


def read_cells(swept: Stage) -> pandas.DataFrame:
    """Return what `sweep` wrote."""
    return pandas.read_csv(swept / "cells.csv", dtype={"control": str, "position": str}).fillna(
        {"control": "", "position": ""}
    )


def find_sound(study: RuntimeStudy, cells: pandas.DataFrame) -> pandas.Series:
    """Return which cells keep the coherence, and stay below the repetition, of the parameters, (cells,) of bool."""
    aligned = cells[cells["method"] == ALIGNED].iloc[0]
    limit = aligned["repetition"] + study.params.max_repetition
    return (cells["coherence"] >= study.params.min_coherence) & (cells["repetition"] <= limit)


def choose_points(study: RuntimeStudy, swept: Stage) -> list[Cell]:
    """Return each method's operating point at each position, and each control's.

    It has the highest trait of all cells that keep the coherence and stay below the repetition of the parameters; of
    equal ones the most coherent. Where none does, the highest product of trait and coherence stands in.
    """
    cells = read_cells(swept)
    cells = cells.assign(sound=find_sound(study, cells))[cells["position"] != ""]
    cells["score"] = cells["trait"].where(cells["sound"], cells["trait"] * cells["coherence"])
    points = []
    for _, group in cells.groupby(["method", "control", "position"], sort=False):
        best = group.sort_values(["sound", "score", "coherence"], ascending=False, kind="stable").iloc[0]
        names = ("method", "control", "position", "layer", "alpha")
        points.append(Cell(*(best[name] for name in names[:3]), int(best["layer"]), float(best["alpha"])))
    return points
