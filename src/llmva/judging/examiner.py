"""Ask a model, judge what it says, record what went on in it: the one pass that every stage of a study makes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas

from llmva.core.text_cache import TextCache
from llmva.engines.base import Engine
from llmva.engines.greedy import respond
from llmva.judging.degeneracy import DegeneracyCheck
from llmva.judging.judges import CombinedJudge, Judge, judge_responses
from llmva.models.activations import Activations, Capture
from llmva.models.chat_model import ChatModel
from llmva.models.reading import read_activations
from llmva.models.templates import opens_thinking


@dataclass(frozen=True)
class Examination:
    """What a model said to some prompts, how it was judged, and what was recorded while it read them.

    `rows` has the prompts' columns and response, guard_verdict, verdict, raw; activations are in their order.
    """

    rows: pandas.DataFrame
    activations: Activations | None


@dataclass(frozen=True)
class Examiner:
    """What makes the examinations of one model: the model, who judges its replies, and how both are run."""

    chat_model: ChatModel
    judge: Judge | CombinedJudge
    cache: TextCache
    degeneracy: DegeneracyCheck | None
    batch_size: int
    max_new_tokens: int
    engine: Engine = respond
    reader: Callable[..., Activations] = read_activations

    def examine(
        self, prompts: pandas.DataFrame, capture: Capture | None = None, progress: str | None = None
    ) -> Examination:
        """Respond to prompts, record the activations asked for, and judge the responses."""
        limits = {"max_new_tokens": self.max_new_tokens, "batch_size": self.batch_size}
        responses = self.engine(
            self.chat_model, prompts["prompt"].tolist(), capture=capture, progress=progress, **limits
        )
        exchanges = prompts.assign(response=responses.texts)
        verdicts = self.judge_responses(exchanges)
        return Examination(exchanges.merge(verdicts, on="id", validate="one_to_one"), responses.activations)

    def read(self, prompts: Sequence[str], capture: Capture) -> Activations:
        """Record the activations that `examine` records, without judging or, where that can be, answering."""
        return self.reader(self.chat_model, prompts, capture=capture, batch_size=self.batch_size)

    def judge_responses(
        self, exchanges: pandas.DataFrame, degeneracy: DegeneracyCheck | None = None
    ) -> pandas.DataFrame:
        """Judge responses of this model; see `llmva.judging.judges.judge_responses`."""
        opened = opens_thinking(self.chat_model.tokenizer)
        options = {"cache": self.cache, "degeneracy": degeneracy or self.degeneracy, "opened": opened}
        return judge_responses(exchanges, self.judge, **options)


def answer_labels(rows: pandas.DataFrame, source: str = "verdict") -> pandas.Series:
    """Return +1 for answered, -1 for refused, 0 for replies that are neither (broken, evaded or unparsed).

    With the source `guard_verdict`, the guard is taken at its word on broken replies as well.
    """
    return rows[source].map({"answered": 1, "refused": -1}).fillna(0).astype(int)


def benign_labels(rows: pandas.DataFrame) -> pandas.Series:
    """Return +1 for benign prompts, -1 for toxic ones."""
    return rows["label"].map({"benign": 1, "toxic": -1}).astype(int)
