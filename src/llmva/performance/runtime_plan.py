"""What a study of run-time steering will cost in replies, hours, memory and disk."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import NamedTuple

import pandas

from llmva.core.errors import InputError
from llmva.core.paths import anchored
from llmva.core.runtime_params import RuntimeParams, load_runtime_shapes
from llmva.core.vocabulary import RUNTIME_SETS, SCENARIOS, TASKS, THREATS
from llmva.measures.coherence import FIRST_TOKENS
from llmva.performance.machines import Machine
from llmva.performance.plan import PROMPT
from llmva.performance.sizes import BYTES, Shape, find_shape
from llmva.prompts.capability import MAX_OPEN_PROMPTS, read_mmlu, read_open_prompts
from llmva.prompts.public.build import TEST_ROWS
from llmva.prompts.tasks import read_tasks
from llmva.prompts.threats import SIDES, read_threats
from llmva.study.runtime.learning import DIRECTIONS
from llmva.study.runtime.study import LIKELIHOOD, WORDS
from llmva.study.runtime.sweep import Cell, list_cells

# Tokens: of a judge's question without prompt and reply, and of its line.
QUESTION, LINE = 200, 7
# Conversations of a test, and their turns, where the data are not there yet.
CONVERSATIONS, TURNS = 10, 9


@dataclass(frozen=True)
class RuntimeAmounts:
    """How much a study is asked: threats, scenarios of one by split, its conversations and their turns; tasks, which
    have answers, and neutral prompts, which are these and those without; and whether all was counted in the data.
    """

    threats: int
    train: int
    validation: int
    test: int
    conversations: int
    turns: int
    tasks: int
    neutral: int
    counted: bool = False


class Look(NamedTuple):
    """How often prompts are answered, how many, of how many tokens, and what a judge is asked of each reply."""

    looks: int
    prompts: int
    read: int = PROMPT
    questions: int = 0


@dataclass(frozen=True)
class RuntimePlan:
    """What is to be run, and on what; the judge is None where no model is one."""

    params: RuntimeParams
    model: Shape
    judge: Shape | None
    machine: Machine
    amounts: RuntimeAmounts
    method: str = "run-time steering"
    held: str = "the stream at every token of the test"

    def cells(self) -> list[Cell]:
        """Return what the sweep tries against one threat."""
        chosen, depth = self.params.layers, self.model.blocks
        layers = list(range(1, depth + 1)) if chosen == "all" else chosen
        if max(layers) > depth:
            raise InputError(f"layers: none of {max(layers)}; {self.params.model} has {depth}, counted from 1")
        return list(list_cells(SimpleNamespace(params=self.params, layers=layers)))

    def stages(self) -> pandas.DataFrame:
        """Return what each stage asks of the machine: indexed by stage, looks, replies, tokens and hours."""
        rows = {stage: self._cost(look) for stage, look in self._looks().items()}
        columns = ["looks", "replies", "tokens", "hours"]
        return pandas.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("stage")

    def memory(self) -> dict[str, float]:
        """Return the bytes that must be there at once: model, judge, and a batch's cache and logits."""
        params, batch, amounts = self.params, self.params.generation.batch_size, self.amounts
        conversed = min(batch, amounts.conversations) * self._length(self._conversed)
        cached = max(batch * self._length(PROMPT), conversed)
        return {
            "model": self.model.parameters * BYTES[params.dtype],
            "judge": self.judge.parameters * BYTES[params.dtype] if self.judge else 0,
            "keys and values of a batch": cached * self.model.cache_bytes(params.dtype),
            # Of the tokens by which coherence is judged.
            "logits of a batch": batch * FIRST_TOKENS * self.model.vocabulary * BYTES[params.dtype],
        }

    def host_memory(self) -> float:
        """Return the bytes of the CPU's memory in a test: the stream of every token at the layers of the points."""
        amounts, length = self.amounts, self._length(PROMPT)
        # As if no two points shared a layer; and the stream behind the last block.
        layers = min(len(self._points), self.model.blocks) + 1
        tokens = (len(SIDES) * amounts.test + amounts.neutral) * length
        logits = 2 * amounts.neutral * self.model.vocabulary
        return 4 * (tokens * layers * self.model.width + logits)

    def disk(self) -> dict[str, float]:
        """Return the bytes that a study leaves on disk."""
        directions = self.amounts.threats * len(DIRECTIONS) * self.model.blocks * self.model.width * 4
        weights = sum(each.parameters for each in (self.model, self.judge) if each) * BYTES[self.params.dtype]
        return {"weights, fetched": weights, "boundaries": directions}

    @property
    def _points(self) -> set[tuple[str, str, str]]:
        """Operating points: one of each method, control and position."""
        return {(cell.method, cell.control, cell.position) for cell in self.cells()}

    @property
    def _conversed(self) -> int:
        """Tokens before the last reply of a conversation, which has all turns before it."""
        return PROMPT + (self.amounts.turns - 1) * self._length(PROMPT) if self.amounts.turns else PROMPT

    def _length(self, read: int) -> int:
        return read + self.params.generation.max_new_tokens

    def _looks(self) -> dict[str, Look]:
        amounts, sides, points = self.amounts, len(SIDES), len(self._points)
        plain = sum(not control for _, control, _ in self._points)
        turns = amounts.threats * (sides + plain) * amounts.turns
        between = (PROMPT + self._conversed) // 2
        return {
            "boundaries": Look(amounts.threats * sides, amounts.train, questions=1),
            "sweep": Look(amounts.threats * (sides + len(self.cells())), amounts.validation, questions=1),
            "tests": Look(amounts.threats * (sides + points), amounts.test, questions=2),
            "tests: tasks": Look(amounts.threats * points + 1, amounts.tasks),
            "tests: neutral prompts": Look(1, amounts.neutral - amounts.tasks),
            "turns": Look(turns, amounts.conversations, between, questions=1),
        }

    def _cost(self, look: Look) -> tuple[int, int, int, float]:
        replies = look.looks * look.prompts
        hours = look.looks * self._seconds(look) / 3600 if replies else 0.0
        return look.looks, replies, replies * self._length(look.read), hours

    def _seconds(self, look: Look) -> float:
        """Return the time to answer and judge the prompts of one look, and to judge the replies' coherence."""
        generation, dtype = self.params.generation, self.params.dtype
        # A look may have fewer prompts than a batch has room for.
        written, batch = generation.max_new_tokens, min(generation.batch_size, look.prompts)
        total = self.machine.answering_seconds(self.model, look.prompts, look.read, written, batch, dtype)
        # The unsteered model reads what coherence is judged by; or, of the tasks, the prompts for the divergence.
        total += self.machine.seconds(2 * self.model.matrices * look.prompts * (look.read + FIRST_TOKENS), 0)
        if self.judge is not None and look.questions:
            asked, read = look.questions * look.prompts, QUESTION + self._length(PROMPT)
            total += self.machine.answering_seconds(self.judge, asked, read, LINE, batch, dtype)
        return total


def find_runtime_shapes(params: RuntimeParams) -> tuple[Shape, Shape | None]:
    """Return the shapes of a study's model and its judge, None where no model is one; see `sizes.find_shapes`."""
    known = load_runtime_shapes(params.slug)
    model = Shape(**known["shape"]) if "shape" in known else find_shape(params.model, "model")
    if params.judge in (WORDS, LIKELIHOOD):
        return model, None
    return model, Shape(**known["judge_shape"]) if "judge_shape" in known else find_shape(params.judge, "judge")


def find_runtime_amounts(params: RuntimeParams) -> RuntimeAmounts:
    """Return what the study's data give or, where they have no threats yet, what is expected of such."""
    if not (anchored(params.data) / "threats").is_dir() and not anchored(params.data).is_file():
        neutral = TEST_ROWS + (len(RUNTIME_SETS) - 1) * MAX_OPEN_PROMPTS
        talk = {"conversations": CONVERSATIONS, "turns": TURNS}
        return RuntimeAmounts(len(THREATS), **SCENARIOS, **talk, tasks=TEST_ROWS, neutral=neutral)
    threats = read_threats(params.data).values()
    tasks = len(read_tasks(params.data, known=TASKS)) + len(read_mmlu(params.data))
    turns = pandas.concat([threat.turns for threat in threats])
    return RuntimeAmounts(
        threats=len(threats),
        **{split: max(len(threat.of_split(split)) for threat in threats) for split in SCENARIOS},
        conversations=turns["conversation"].nunique(),
        turns=turns["turn"].nunique(),
        tasks=tasks,
        neutral=tasks + len(read_open_prompts(params.data)),
        counted=True,
    )
