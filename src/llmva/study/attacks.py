"""Attacks in wrappers that no method has seen: what each method makes of them, with the setting that it was given."""

import json
import sys
from pathlib import Path

import pandas

from llmva.core.paths import write_texts
from llmva.core.provenance import digest
from llmva.core.store import Stage
from llmva.core.vocabulary import BOTH, ORIGINAL, OUR_LOOP, PAPER_LOOP, TWO_SIDED
from llmva.measures.intervals import with_intervals
from llmva.steering.base import SteeringMethod
from llmva.steering.llm_va import LlmVa
from llmva.steering.registry import METHODS
from llmva.study.evaluation import both_on, stage_name
from llmva.study.loop_variants import read_loop
from llmva.study.records import record
from llmva.study.study import Study

# Weights that are edited or trained, and steering, which the tables of the seen wrappers put first.
ATTACKED = (ORIGINAL, "AlphaSteer+", "Fine-tuning", TWO_SIDED, PAPER_LOOP, OUR_LOOP, BOTH)


def attack_methods(study: Study, evaluated: dict[str, Stage], loops: dict[str, Stage]) -> dict[str, Stage]:
    """Let some methods answer the attacks, each with the setting that was chosen on validation, and no other.

    Parameters
    ----------
    evaluated, loops : dict of str to Stage
        As `evaluate_all` and `run_loops` return them.
    """
    if study.attacks.empty:
        print(f"{study.params.data}: without attacks/: not measured, and there is no table of attacks", file=sys.stderr)
        return {}
    return {name: _attack(study, name, evaluated[name], loops) for name in ATTACKED}


def record_attacks(study: Study, attacked: dict[str, Stage]) -> pandas.DataFrame:
    """Write every method's rates on the attacks with intervals and tests (`attacks.csv`); no rows without attacks."""
    if not attacked:
        return pandas.DataFrame(columns=["method", "dataset", "metric", "value"])
    outcomes = {
        name: pandas.read_csv(stage / "outcomes.csv", keep_default_na=False) for name, stage in attacked.items()
    }
    frame = with_intervals(outcomes, seed=study.params.seed)
    record(study, "attacks", frame)
    return frame


def _attack(study: Study, name: str, evaluated: Stage, loops: dict[str, Stage]) -> Stage:
    loop = loops.get(OUR_LOOP if name == BOTH else name)
    setting = json.loads((evaluated / "settings.json").read_text())[name]

    def compute(folder: Path) -> None:
        method = _method(study, name, loop)
        method.fit(study.training)
        with method.applied(study.chat_model, setting):
            rows = study.examiner.examine(study.attacks).rows
        write_texts(folder / "outcomes.csv", rows[["id", "dataset", "label", "guard_verdict", "verdict"]])
        write_texts(folder / "responses.csv", rows[["id", "response"]])

    return study.stage(
        f"attacks/{stage_name(name)}",
        compute,
        fields=("seed",),
        upstream=(study.prompts_stage, evaluated, *([loop] if loop else [])),
        version=1,
        method=name,
        setting=setting,
        attacks=digest(study.attacks["id"].tolist()),
    )


def _method(study: Study, name: str, loop: Stage | None) -> SteeringMethod:
    if name == BOTH:
        return both_on(study, loop)
    if loop is None:
        return METHODS[name]()
    finished = read_loop(loop)
    return LlmVa(finished.log, name, finished.choice.rounding)
