"""The operating points on test scenarios under a system prompt that nothing was learnt from, and over nine turns."""

import json
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy
import pandas
import torch

from llmva.core.paths import write_texts
from llmva.core.progress import progress_bar
from llmva.core.store import Stage
from llmva.measures.repetition import repeated_share, reused_share
from llmva.models.activations import FINAL, Capture
from llmva.models.batches import by_length, forward, pad
from llmva.models.chat_model import encode_chats, encode_texts
from llmva.models.reading import read_activations
from llmva.prompts.tasks import read_answer
from llmva.prompts.threats import ALIGNED, MALICIOUS, SIDES, chats_of
from llmva.steering.runtime.steering import RuntimeSteering
from llmva.study.runtime.learning import learn_boundaries, read_boundaries
from llmva.study.runtime.study import RuntimeStudy
from llmva.study.runtime.sweep import Cell, choose_points, sweep_threat
from llmva.study.side_by_side import compute_ahead

NEUTRAL = "neutral"
TURN_RESULTS = ["row", "position", "conversation", "turn", "response", "trait", "within", "across"]


@dataclass(frozen=True, eq=False)
class Texts:
    """Texts of one kind: the stream of all tokens by layer, (tokens, d); of each text its tokens, and its reply's."""

    streams: dict[int, torch.Tensor]
    lengths: numpy.ndarray
    reply_lengths: numpy.ndarray

    def in_position(self, position: str) -> torch.Tensor:
        """Return which tokens a position has, (tokens,) of bool: all, or those of the replies."""
        starts = numpy.repeat(numpy.cumsum(self.lengths) - self.reply_lengths, self.lengths)
        return torch.from_numpy((position == "all") | (numpy.arange(self.lengths.sum()) >= starts))


def measure_threats(study: RuntimeStudy) -> dict[str, Stage]:
    """Test every threat's operating points, side by side where there are several processes; see `measure_points`."""
    compute_ahead(study, [partial(measure_points, threat=threat) for threat in study.threats])
    return {threat: measure_points(study, threat) for threat in study.threats}


def converse(study: RuntimeStudy) -> dict[str, Stage]:
    """Hold every threat's conversations, likewise; see `hold_conversations`. None of threats without any."""
    threats = [name for name, threat in study.threats.items() if len(threat.turns)]
    compute_ahead(study, [partial(hold_conversations, threat=threat) for threat in threats])
    return {threat: hold_conversations(study, threat) for threat in threats}


def measure_points(study: RuntimeStudy, threat: str) -> Stage:
    """Test a threat's operating points once, beside both unsteered sides.

    Writes `points.json`: the cells; `responses.csv`: row, prompt, response, and of each reply trait, loss and
    repetition, and what a chat model as judge says of its language; `tasks.csv`: row, task, prompt, right;
    `tokens.csv`: of each row and text (malicious, aligned or neutral) the tokens in its position, how many are moved,
    and the sum of |h' - h|; and `divergence.csv`: of each row and neutral prompt the divergence at its last token.
    """

    learnt, swept = learn_boundaries(study), sweep_threat(study, threat)

    def compute(folder: Path) -> None:
        rows, boundaries = study.threats[threat].of_split("test"), read_boundaries(learnt)
        points = choose_points(study, swept)
        steerings = {point: point.steering(threat, boundaries) for point in points}
        (folder / "points.json").write_text(json.dumps([asdict(point) for point in points], indent=1) + "\n")
        unsteered = {side: study.respond(chats_of(rows, side)) for side in SIDES}
        said = [_said(study, threat, rows, side, "", replies) for side, replies in unsteered.items()]
        solved = [_solve(study).assign(row=ALIGNED, position="")]
        texts = _texts(study, rows, unsteered, {point.layer for point in points})
        tokens, divergences, before = [], [], _last_logits(study)
        for point, steering in progress_bar(f"testing against {threat}", steerings.items()):
            with steering.applied(study.chat_model):
                replies, solutions = study.respond(chats_of(rows, MALICIOUS)), _solve(study)
                after = _last_logits(study)
            names = {"row": point.row, "position": point.position}
            said.append(_said(study, threat, rows, point.row, point.position, replies))
            solved.append(solutions.assign(**names))
            tokens.append(_moved(texts, steering).assign(**names))
            divergences.append(pandas.DataFrame({"divergence": _divergences(before, after)}).assign(**names))
        write_texts(folder / "responses.csv", pandas.concat(said))
        write_texts(folder / "tasks.csv", pandas.concat(solved))
        pandas.concat(tokens).to_csv(folder / "tokens.csv", index=False)
        pandas.concat(divergences).to_csv(folder / "divergence.csv", index=False)

    # They decide which cell is the operating point.
    fields = ("min_coherence", "max_repetition")
    return study.stage(f"12_tests/{threat}", compute, version=1, fields=fields, upstream=[learnt, swept], threat=threat)


def hold_conversations(study: RuntimeStudy, threat: str) -> Stage:
    """Let the operating points, and both unsteered sides, hold the test's conversations.

    Writes `turns.csv`: row, position, conversation, turn, response, trait, within (the share of 4-grams repeated in
    the reply) and across (the share that occurred in an earlier reply).
    """

    learnt, tested = learn_boundaries(study), measure_points(study, threat)

    def compute(folder: Path) -> None:
        boundaries, tables = read_boundaries(learnt), []
        systems = study.threats[threat].of_split("test").iloc[0]
        points = [point for point in read_points(tested) if not point.control]
        steered = [(point.row, point.position, point.steering(threat, boundaries)) for point in points]
        for row, position, steering in [(side, "", None) for side in SIDES] + steered:
            side = ALIGNED if row == ALIGNED else MALICIOUS
            with steering.applied(study.chat_model) if steering else nullcontext():
                said = _converse(study, threat, systems, side)
            # A judge may be the model itself, which nothing steers then.
            said["trait"] = study.judge(said, said["response"].tolist(), threat)
            tables.append(said.assign(row=row, position=position)[TURN_RESULTS])
        write_texts(folder / "turns.csv", pandas.concat(tables))

    return study.stage(f"12_turns/{threat}", compute, version=1, upstream=[learnt, tested], threat=threat)


def read_points(tested: Stage) -> list[Cell]:
    """Return the operating points that `measure_points` tested."""
    return [Cell(**point) for point in json.loads((tested / "points.json").read_text())]


def _said(
    study: RuntimeStudy, threat: str, rows: pandas.DataFrame, row: str, position: str, replies: list[str]
) -> pandas.DataFrame:
    table = pandas.DataFrame(
        {
            "row": row,
            "position": position,
            "prompt": rows["prompt"],
            "response": replies,
            "trait": study.judge(rows, replies, threat),
            "loss": study.coherence.losses(chats_of(rows, ALIGNED), replies),
            "repetition": [repeated_share(reply) for reply in replies],
        }
    )
    if study.trait_judge is not None:
        table["language"] = study.trait_judge.score_coherence(rows["prompt"], replies)
    return table


def _solve(study: RuntimeStudy) -> pandas.DataFrame:
    """Return which neutral tasks the model, as it is now, solves without any system prompt."""
    tasks = study.tasks
    replies = study.respond(tasks["prompt"].tolist())
    right = [
        read_answer(task, reply) == read_answer(task, answer)
        for task, answer, reply in zip(tasks["task"], tasks["answer"], replies, strict=True)
    ]
    return tasks[["task", "prompt"]].assign(right=numpy.array(right, int))


def _texts(
    study: RuntimeStudy, rows: pandas.DataFrame, unsteered: dict[str, list[str]], layers: set[int]
) -> dict[str, Texts]:
    """Return the texts that gates are read on: exchanges on either side, and neutral ones where there are any."""
    exchanges = {side: (chats_of(rows, side), replies) for side, replies in unsteered.items()}
    if study.neutral:
        exchanges[NEUTRAL] = study.neutral, study.respond(study.neutral)
    texts = {}
    for name, exchange in exchanges.items():
        capture = Capture(outputs=False, blocks=True, layers=tuple(sorted(layers)), positions="all")
        batch_size = study.params.generation.batch_size
        read = read_activations(study.chat_model, *exchange, capture=capture, batch_size=batch_size)
        # Behind the last layer no block follows.
        streams = {layer: torch.from_numpy(read.blocks.get(layer, read.outputs[FINAL])) for layer in layers}
        replies = encode_texts(study.chat_model.tokenizer, exchange[1])
        texts[name] = Texts(streams, read.lengths, numpy.array([len(reply) for reply in replies]))
    return texts


def _moved(texts: dict[str, Texts], steering: RuntimeSteering) -> pandas.DataFrame:
    """Return, of each text, its tokens in a steering's position, how many it would move, and the sum of how far.

    Layers below the steered one never see the steering, so that their stream is the unsteered model's.
    """
    tables = []
    for name, kind in texts.items():
        where = kind.in_position(steering.position)
        gate, shift = steering.shifts(kind.streams[steering.layer], where)
        starts = numpy.cumsum(kind.lengths) - kind.lengths
        sums = [numpy.add.reduceat(values.double().numpy(), starts) for values in (where, gate, shift.abs())]
        tables.append(pandas.DataFrame({"text": name, **dict(zip(("tokens", "moved", "distance"), sums, strict=True))}))
    return pandas.concat(tables)


@torch.inference_mode()
def _last_logits(study: RuntimeStudy) -> torch.Tensor:
    """Return the log-probabilities of the first token of each reply to a neutral prompt, (n, vocabulary)."""
    sequences = encode_chats(study.chat_model.tokenizer, study.neutral)
    order, size, parts = by_length(sequences), study.params.generation.batch_size, []
    for start in range(0, len(order), size):
        batch = pad(study.chat_model, [sequences[place] for place in order[start : start + size]])
        parts.append(forward(study.chat_model, batch).logits[:, -1].float().log_softmax(-1).cpu())
    # Data without tasks have no neutral prompts.
    return torch.cat(parts) if parts else torch.zeros(0, 1)


def _divergences(before: torch.Tensor, after: torch.Tensor) -> numpy.ndarray:
    return (before.exp() * (before - after)).sum(-1).numpy()


def _converse(study: RuntimeStudy, threat: str, systems: pandas.Series, side: str) -> pandas.DataFrame:
    turns = study.threats[threat].turns.assign(**{name: systems[name] for name in SIDES})
    chats = {number: [{"role": "system", "content": systems[side]}] for number in turns["conversation"].unique()}
    earlier: dict[int, list[str]] = {number: [] for number in chats}
    rows = []
    for _, asked in turns.groupby("turn"):
        for number, prompt in zip(asked["conversation"], asked["prompt"], strict=True):
            chats[number].append({"role": "user", "content": prompt})
        replies = study.respond([chats[number] for number in asked["conversation"]])
        for scenario, reply in zip(asked.to_dict("records"), replies, strict=True):
            number = scenario["conversation"]
            measured = {"within": repeated_share(reply), "across": reused_share(reply, earlier[number])}
            rows.append({**scenario, "response": reply, **measured})
            chats[number].append({"role": "assistant", "content": reply})
            earlier[number].append(reply)
    return pandas.DataFrame(rows)
