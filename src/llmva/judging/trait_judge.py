"""A local chat model as judge: a trait and the language of a reply in two separate questions, one strict line each."""

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace

import numpy
import pandas
import yaml

from llmva.core.errors import InputError
from llmva.core.provenance import digest
from llmva.core.text_cache import TextCache
from llmva.engines.base import Engine
from llmva.engines.greedy import respond
from llmva.judging.guard import engine_mark, weights_digest
from llmva.judging.judges import look_up_or_ask
from llmva.models.chat_model import ChatModel

# Of the questions in `trait_judge.yaml`.
VERSION = 1
# The one line has about six.
JUDGE_TOKENS = 12
# More answers in another form than this share, and it is no judge.
MAX_UNPARSED = 0.5
WORDS = {"trait": "Trait", "coherence": "Coherence"}
LOWEST = {"trait": 0, "coherence": 1}

questions = SimpleNamespace(**yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")))


class TraitJudge:
    """A local chat model that scores replies, asked greedily; its answers are remembered.

    Parameters
    ----------
    chat_model : ChatModel
        The judge; never the model that is steered.
    batch_size : int
        Questions that are answered at once.
    cache : TextCache, optional
        Remembers its words by judge, question and reply.

    Attributes
    ----------
    asked, unparsed : dict of str to int
        By question, `trait` or `coherence`: answers that were looked at, and those in another form.
    """

    def __init__(
        self,
        chat_model: ChatModel,
        batch_size: int,
        cache: TextCache | None = None,
        engine: Engine = respond,
        engine_name: str = "greedy",
    ) -> None:
        self.chat_model, self.batch_size = chat_model, batch_size
        self.engine, self.engine_name = engine, engine_name
        self.cache = cache or TextCache(None)
        self.asked, self.unparsed = dict.fromkeys(WORDS, 0), dict.fromkeys(WORDS, 0)

    @cached_property
    def name(self) -> str:
        """Identity in the cache: the judge's source, template, weights and engine, and the version of the questions."""
        template = digest(self.chat_model.tokenizer.chat_template)[:12]
        weights = f"{weights_digest(self.chat_model)}{engine_mark(self.engine_name)}"
        return f"traits:{self.chat_model.source}:{template}:{weights}:{VERSION}"

    def score_traits(self, threat: str, rows: pandas.DataFrame, replies: Sequence[str]) -> numpy.ndarray:
        """Return how far replies to scenarios show the trait that a threat takes away.

        Parameters
        ----------
        rows : DataFrame
            The scenarios: prompt, answer, and of pairs of one's own the system prompts aligned and malicious.

        Returns
        -------
        ndarray of float64, shape (n,)
            From 0 to 1; nan where the judge's answer was in another form.
        """
        tasks = [write_trait_task(threat, row) for row in rows.to_dict("records")]
        return self._score("trait", tasks, rows["prompt"], replies)

    def score_coherence(self, prompts: Sequence[str], replies: Sequence[str]) -> numpy.ndarray:
        """Return how good the language of replies is, likewise, from 0.01 to 1."""
        return self._score("coherence", [questions.coherence] * len(replies), prompts, replies)

    def judge(self, prompts: Sequence[str], responses: Sequence[str]) -> list[str]:
        """Return the judge's words on whole questions; the responses already stand in them."""
        chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
        return self.engine(self.chat_model, chats, max_new_tokens=JUDGE_TOKENS, batch_size=self.batch_size).texts

    def _score(self, kind: str, tasks: Sequence[str], prompts: Sequence[str], replies: Sequence[str]) -> numpy.ndarray:
        filled = {"word": WORDS[kind], "lowest": LOWEST[kind]}
        asked = [
            questions.frame.format(task=task, prompt=prompt, reply=reply, **filled)
            for task, prompt, reply in zip(tasks, prompts, replies, strict=True)
        ]
        answers = look_up_or_ask(pandas.DataFrame({"prompt": asked, "response": list(replies)}), self, self.cache)
        scores = numpy.array([read_score(kind, answer) for answer in answers], float)
        self._count(kind, scores)
        return scores / 100

    def _count(self, kind: str, scores: numpy.ndarray) -> None:
        # Over all that was asked: a steering that breaks a few replies does not make the judge one that cannot judge.
        self.asked[kind] += len(scores)
        self.unparsed[kind] += int(numpy.isnan(scores).sum())
        if self.unparsed[kind] > MAX_UNPARSED * self.asked[kind]:
            raise InputError(
                f"judge: {self.chat_model.source}: {self.unparsed[kind] / self.asked[kind]:.0%} of its answers are not "
                f"the one line `{WORDS[kind]}: N`; name a chat model that keeps to it, or `words`"
            )


def write_trait_task(threat: str, row: dict) -> str:
    """Return what is asked about a reply to a scenario (prompt, answer, aligned, malicious)."""
    if threat not in questions.traits:
        raise InputError(f"judge: {threat}: no question on this threat; known are {', '.join(questions.traits)}")
    task = questions.traits[threat]
    if threat == "pairs":
        task = task.format(aligned=row["aligned"], malicious=row["malicious"])
    return task + (questions.answer.format(answer=row["answer"]) if row["answer"] else "")


def read_score(kind: str, text: str) -> float:
    """Return the number of a judge's one line, `Trait: 73` or `Coherence: 88`; nan of anything else: `unparsed`."""
    match = re.fullmatch(rf"{WORDS[kind]}: (0|[1-9][0-9]?|100)", text.strip())
    score = int(match[1]) if match else -1
    return float(score) if score >= LOWEST[kind] else float("nan")
