"""A study of run-time steering of one model: what its stages share, loaded only when something must be computed."""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import jinja2
import numpy
import pandas
import torch

from llmva.core import paths
from llmva.core.errors import InputError, first_line
from llmva.core.provenance import digest
from llmva.core.runtime_params import RuntimeParams, load_runtime_params
from llmva.core.store import Stage, run_stage
from llmva.core.text_cache import TextCache
from llmva.core.vocabulary import TASKS
from llmva.edits.loading import load_edited
from llmva.engines.choice import judge_engine
from llmva.engines.memory import ReplyMemory
from llmva.judging.guard import judge_key
from llmva.judging.trait_judge import VERSION, TraitJudge
from llmva.judging.traits import WORDS_VERSION, judge_trait, markers
from llmva.measures.coherence import CoherenceCheck
from llmva.models.chat_model import ChatModel, encode_chats, load_model
from llmva.models.in_memory import HeldModel
from llmva.models.sources import checkpoint_key, locate
from llmva.prompts.capability import read_mmlu, read_open_prompts
from llmva.prompts.tasks import read_tasks
from llmva.prompts.threats import SIDES, Threat, chats_of, read_threats

# The judges that are no model of their own: answers and words of care; and the one that needs no words, whether the
# aligned prompt makes a reply likelier than the malicious one does.
WORDS, LIKELIHOOD = "words", "likelihood"


class RuntimeStudy:
    """Parameters, folders and, once needed, the model of a study of run-time steering.

    Parameters
    ----------
    params : RuntimeParams
        Checked parameters. Torch's thread count is set from them, since results depend on it.
    held : HeldModel, optional
        A model that is in memory already; then `params.model` is only its name.
    """

    def __init__(self, params: RuntimeParams, held: HeldModel | None = None) -> None:
        self.params = params
        self.held = held
        torch.set_num_threads(params.threads)

    @classmethod
    def of(cls, namespace: dict) -> "RuntimeStudy":
        """Build a study from a notebook's `globals()`: the names of its `parameters` cell."""
        fields = RuntimeParams.model_fields
        return cls(RuntimeParams.checked({name: namespace[name] for name in fields if name in namespace}))

    @classmethod
    def named(cls, slug: str) -> "RuntimeStudy":
        """Build the study of a slug from its parameter file."""
        return cls(load_runtime_params(slug))

    @cached_property
    def chat_model(self) -> ChatModel:
        """The model, loaded at first use."""
        params = self.params
        return self.held.chat_model if self.held else load_edited(params.model, dtype=params.dtype, editable=False)

    @property
    def model_key(self) -> str:
        """What identifies the model's weights."""
        return self.held.key if self.held else checkpoint_key(self.params.model)

    @cached_property
    def threats(self) -> dict[str, Threat]:
        """The threats that the data bring, by name."""
        return read_threats(self.params.data)

    @cached_property
    def tasks(self) -> pandas.DataFrame:
        """The test rows of the neutral tasks that a reply solves, MMLU's among them: task, prompt, answer."""
        return pandas.concat(
            [read_tasks(self.params.data, known=TASKS), read_mmlu(self.params.data)], ignore_index=True
        )

    @cached_property
    def neutral(self) -> list[str]:
        """Prompts that no threat is about: the tasks', and those without a right answer."""
        return [*self.tasks["prompt"], *read_open_prompts(self.params.data)]

    @cached_property
    def coherence(self) -> CoherenceCheck:
        """What judges the language of replies: the model itself, while nothing steers it."""
        return CoherenceCheck(self.chat_model, self.params.generation.batch_size)

    @property
    def layers(self) -> list[int]:
        """The layers that are tried."""
        chosen, depth = self.params.layers, len(self.chat_model.blocks)
        if chosen == "all":
            return list(range(1, depth + 1))
        if beyond := [layer for layer in chosen if layer > depth]:
            raise InputError(f"layers: {beyond[0]} is not there; {self.params.model} has 1 to {depth}")
        if not chosen or len(set(chosen)) < len(chosen):
            raise InputError(f"layers: is {chosen}; name each once, or write all")
        return list(chosen)

    def require_fit(self) -> None:
        """Raise an `InputError` for a layer that the model lacks, or system prompts that it does not read."""
        _ = self.layers
        for threat in self.threats.values():
            rows = threat.scenarios.head(1)
            try:
                aligned, malicious = (encode_chats(self.chat_model.tokenizer, chats_of(rows, side)) for side in SIDES)
            except jinja2.TemplateError as error:
                raise InputError(f"{self.params.model}: chat template: takes no system prompt ({first_line(error)}); "
                                 "choose another model") from None  # fmt: skip
            if aligned == malicious:
                raise InputError(f"{self.params.model}: chat template: leaves out system prompts; choose another model")

    def judge(self, rows: pandas.DataFrame, replies: Sequence[str], threat: str) -> numpy.ndarray:
        """Return how far replies to scenarios show the trait that a threat takes away, (n,): 0 or 1, or a share.

        A share is a chat model's score; it is nan where that was in another form.
        """
        if self.params.judge == LIKELIHOOD:
            return self.coherence.gaps(*(chats_of(rows, side) for side in SIDES), replies) > 0
        if self.trait_judge is not None:
            return self.trait_judge.score_traits(threat, rows, replies)
        return judge_trait(threat, rows["answer"].tolist(), replies)

    @cached_property
    def trait_judge(self) -> TraitJudge | None:
        """The chat model that scores replies, loaded at first use; None where the judge is none."""
        params = self.params
        if params.judge in (WORDS, LIKELIHOOD):
            return None
        # In its own type: what it says is no part of the study's precision.
        chat_model = load_model(params.judge, dtype="auto", editable=False)
        name, engine = judge_engine()
        cache = TextCache(paths.RUNS / "verdicts.sqlite")
        return TraitJudge(chat_model, params.generation.batch_size, cache, engine, name)

    @cached_property
    def replies(self) -> ReplyMemory:
        """What the model replied while nothing steered it."""
        return ReplyMemory(self.params.run_folder / "replies.sqlite")

    def respond(self, chats: Sequence[str | list[dict]]) -> list[str]:
        """Let the model, as it is steered now, answer chats."""
        return self.replies.respond(self.chat_model, chats, **self.params.generation.model_dump()).texts

    def stage(
        self,
        name: str,
        compute: Callable[[Path], dict | None],
        *,
        version: int,
        fields: Sequence[str] = (),
        upstream: Sequence[Stage] = (),
        **parameters: object,
    ) -> Stage:
        """Declare a stage of this study and return it, found or computed; see `run_stage`."""
        params = self.params
        chosen = {name: getattr(params, name) for name in ("seed", "threads", "dtype", *fields)}
        identity = {"model": self.model_key, "generation": params.generation.model_dump(), **chosen}
        return run_stage(
            params.run_folder / name,
            compute,
            parameters={**identity, "judge": self._judge_identity, "data": self._data_digest, **parameters},
            upstream=upstream,
            version=version,
        )

    @cached_property
    def _judge_identity(self) -> str:
        judge = self.params.judge
        if judge == LIKELIHOOD:
            return judge
        if judge == WORDS:
            return f"{WORDS}:{WORDS_VERSION}:{digest(vars(markers))[:12]}"
        # Found out before hours of replies wait for it.
        locate(judge)
        return f"{judge_key(judge)}:{VERSION}"

    @cached_property
    def _data_digest(self) -> str:
        tables = [self.tasks]
        if open_prompts := read_open_prompts(self.params.data):
            tables.append(pandas.DataFrame({"prompt": open_prompts}))
        for threat in self.threats.values():
            tables += [threat.scenarios, threat.turns]
        return digest([table.astype(str).to_numpy().tolist() for table in tables])
