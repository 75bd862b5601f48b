"""A study of one model: what its stages share, loaded only when something must be computed."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import pandas
import torch

from llmva.core import paths
from llmva.core.params import StudyParams, load_params
from llmva.core.paths import anchored
from llmva.core.results import is_organism, world_of
from llmva.core.store import MANIFEST, Stage, open_stage, read_manifest, run_stage
from llmva.core.text_cache import TextCache
from llmva.core.vocabulary import REPLY_TASK, WORD_JUDGES
from llmva.edits.loading import load_edited
from llmva.engines.base import Engine
from llmva.engines.choice import judge_engine
from llmva.engines.memory import ReplyMemory
from llmva.engines.think_first import ThinkFirst
from llmva.judging.degeneracy import DegeneracyCheck
from llmva.judging.examiner import Examiner
from llmva.judging.guard import GuardJudge, judge_key
from llmva.judging.judges import Judge, PhraseJudge
from llmva.judging.refusals import RefusalJudge
from llmva.measures.utility import measure_utility
from llmva.method.iteration import ObservationSettings
from llmva.method.loop import LoopSettings
from llmva.models.chat_model import ChatModel, load_model
from llmva.models.in_memory import HeldModel
from llmva.models.sources import checkpoint_key, find_base, split_source
from llmva.models.templates import told_to_think
from llmva.organisms.corpus import draw_attacks
from llmva.prompts.pools import read_attack_sets, read_transfer_sets
from llmva.prompts.tasks import read_tasks
from llmva.steering.base import TrainingData

PROMPTS_STAGE = "00_start_here"


class Study:
    """Parameters, folders and, once needed, the model and the judge of a study.

    Parameters
    ----------
    params : StudyParams
        Checked parameters. Torch's thread count is set from them, since results depend on it.
    held : HeldModel, optional
        A model that is in memory already; then `params.model` is only its name.
    """

    def __init__(self, params: StudyParams, held: HeldModel | None = None) -> None:
        self.params = params
        self.held = held
        torch.set_num_threads(params.threads)

    @classmethod
    def of(cls, namespace: dict) -> "Study":
        """Build a study from a notebook's `globals()`: the names of its `parameters` cell."""
        fields = StudyParams.model_fields
        return cls(StudyParams.checked({name: namespace[name] for name in fields if name in namespace}))

    @classmethod
    def named(cls, slug: str) -> "Study":
        """Build the study of a slug from its parameter file."""
        return cls(load_params(slug))

    @property
    def folder(self) -> Path:
        """Where this study's stages are."""
        return self.params.run_folder

    @cached_property
    def chat_model(self) -> ChatModel:
        """The model, loaded at first use."""
        loaded = self.held.chat_model if self.held else load_edited(self.params.model, dtype=self.params.dtype)
        return self._let_think(loaded)

    def _let_think(self, chat_model: ChatModel) -> ChatModel:
        return replace(chat_model, tokenizer=told_to_think(chat_model.tokenizer)) if self.thinking else chat_model

    @property
    def model_key(self) -> str:
        """What identifies the model's weights."""
        return self.held.key if self.held else checkpoint_key(self.params.model)

    @cached_property
    def judge(self) -> Judge:
        """The judge, loaded at first use."""
        params = self.params
        if params.judge_model in WORD_JUDGES:
            return {"phrases": PhraseJudge, "refusals": RefusalJudge}[params.judge_model]()
        # In its own type: what it says is no part of the study's precision.
        guard = load_model(params.judge_model, dtype="auto", editable=False)
        name, engine = judge_engine()
        options = {"mapping": params.judge_mapping, "engine": engine, "engine_name": name}
        return GuardJudge(guard, params.generation.batch_size, **options)

    @cached_property
    def plain_examiner(self) -> Examiner:
        """The examiner before the check for broken language is calibrated."""
        cache = TextCache(paths.RUNS / "verdicts.sqlite")
        options = {**self.params.generation.model_dump(), "engine": self.engine}
        reader = {"reader": self.thinking.read} if self.thinking else {}
        return Examiner(self.chat_model, self.judge, cache, None, **options, **reader)

    @cached_property
    def thinking(self) -> ThinkFirst | None:
        """How the model thinks before it answers; None without a budget for it."""
        return ThinkFirst(self.replies.respond, self.params.thinking) if self.params.thinking else None

    @property
    def engine(self) -> Engine:
        """How the model answers, in any state of it."""
        return self.thinking.respond if self.thinking else self.replies.respond

    @cached_property
    def replies(self) -> ReplyMemory:
        """What the model, in any state of it, replied to a prompt before."""
        return ReplyMemory(self.folder / "replies.sqlite")

    @cached_property
    def surprises(self) -> TextCache:
        """How surprised the original was by replies."""
        return TextCache(self.folder / "surprises.sqlite")

    @cached_property
    def examiner(self) -> Examiner:
        """The examiner that every stage after the prompts uses."""
        # A second copy of the model judges language, so that edits to the first cannot excuse themselves.
        reference = self.held.reference if self.held else load_edited(self.params.model, dtype=self.params.dtype)
        limit = self.prompts_stage.manifest["facts"]["surprise_limit"]
        check = DegeneracyCheck(self._let_think(reference), limit, self.params.generation.batch_size, self.surprises)
        return replace(self.plain_examiner, degeneracy=check)

    def measure_utility(self) -> pandas.DataFrame:
        """Measure the tasks with the model as it is now; see `llmva.measures.utility.measure_utility`."""
        options = self.params.generation.model_dump() | {"engine": self.engine}
        return measure_utility(self.chat_model, self.tasks, **options, replies=self.replies_to_keep)

    @property
    def untuned_source(self) -> str:
        """Where the weights come from that the model was tuned from here; empty for any other model."""
        manifest = anchored(self.params.model) / MANIFEST
        known = world_of(self.params.slug) == "pretrained" and manifest.is_file()
        return read_manifest(manifest.parent)["facts"].get("source", "") if known else ""

    @property
    def log_metadata(self) -> dict[str, str]:
        """What an edit log says of its base: the model, its revision, and what identifies its weights."""
        name, revision = split_source(find_base(self.params.model))
        return {
            "model": name,
            "revision": revision,
            "key": self.model_key,
            "slug": self.params.slug,
        }

    @cached_property
    def prompts_stage(self) -> Stage:
        """The finished prompts stage; the same one for as long as this study is in memory."""
        fix = f"run notebook {PROMPTS_STAGE} first (`make step NB=00 MODEL={self.params.slug}`)"
        return open_stage(self.folder / PROMPTS_STAGE, fix=fix)

    @cached_property
    def pool(self) -> pandas.DataFrame:
        """The study's prompts: id, dataset, label, group, split, prompt."""
        return pandas.read_csv(self.prompts_stage / "prompts.csv", dtype=str, keep_default_na=False)

    @property
    def validation(self) -> pandas.DataFrame:
        """The validation prompts."""
        return self.pool[self.pool["split"] == "validation"].reset_index(drop=True)

    @property
    def test(self) -> pandas.DataFrame:
        """The test prompts, which are read once."""
        return self.pool[self.pool["split"] == "test"].reset_index(drop=True)

    @cached_property
    def transfer(self) -> pandas.DataFrame:
        """Prompts of the unseen sets, which are read once; no rows where the data bring none."""
        return read_transfer_sets(self.params.data, self.params.transfer_size, self.params.seed)

    @cached_property
    def attacks(self) -> pandas.DataFrame:
        """Attacks in wrappers that no method has seen, and harmless prompts in the same.

        Those of the data, or of an organism's corpus; no rows where neither has any.
        """
        found = read_attack_sets(self.params.data)
        return draw_attacks(self.params.seed) if found.empty and is_organism(self.params.slug) else found

    @cached_property
    def tasks(self) -> pandas.DataFrame:
        """The utility tasks that the data bring: task, prompt, answer; and choices where one gives some."""
        return read_tasks(self.params.data)

    @cached_property
    def neutral(self) -> pandas.DataFrame:
        """Prompts that have nothing to do with safety and the original's replies: task, prompt, reply."""
        return pandas.read_csv(self.prompts_stage / "neutral.csv", dtype=str, keep_default_na=False)

    @cached_property
    def replies_to_keep(self) -> pandas.DataFrame | None:
        """The original's replies to the test prompts of `REPLY_TASK`: task, prompt, reply; None without such a task."""
        if REPLY_TASK not in set(self.tasks["task"]):
            return None
        return pandas.read_csv(self.prompts_stage / "neutral_test.csv", dtype=str, keep_default_na=False)

    @cached_property
    def training(self) -> TrainingData:
        """What every method may learn from: the training prompts with the original's replies and verdicts."""
        stage = self.prompts_stage
        replies = pandas.read_csv(stage / "responses.csv", dtype=str, keep_default_na=False)
        verdicts = pandas.read_csv(stage / "verdicts.csv", keep_default_na=False)[["id", "verdict"]]
        rows = self.pool[self.pool["split"] == "train"]
        for table in (replies, verdicts):
            rows = rows.merge(table, on="id", validate="one_to_one")
        neutral = tuple(self.neutral["prompt"])
        return TrainingData(self.chat_model, rows, neutral, self.params.generation.batch_size, self.params.seed)

    def identity(self, *fields: str) -> dict:
        """Return a stage's parameters: the fields it depends on and what the model and the judge are."""
        params = self.params
        generation = ("threads", "dtype", "generation", *(("thinking",) if params.thinking else ()))
        # Its words may become more; those of `phrases` stay as finished studies had them.
        named = {"phrases": "phrases", "refusals": RefusalJudge().name}
        judge = named.get(params.judge_model) or judge_key(params.judge_model)
        if params.judge_mapping != "outcome":
            judge = f"{judge}:{params.judge_mapping}"
        return {
            "model": self.model_key,
            "judge": judge,
            **params.model_dump(include={*generation, *fields}),
        }

    def stage(
        self,
        name: str,
        compute: Callable[[Path], dict | None],
        *,
        version: int,
        fields: Sequence[str] | None = (),
        upstream: Sequence[Stage] | None = None,
        **parameters: object,
    ) -> Stage:
        """Declare a stage of this study and return it, found or computed; see `run_stage`.

        The manifest's facts say how many prompts were asked meanwhile, and how many a model had to answer.

        Parameters
        ----------
        name : str
            Its folder below the study's.
        fields : sequence of str, optional
            The parameters that it depends on, besides `identity`; None where it depends on no model either.
        upstream : sequence of Stage, optional
            What it reads; the prompts by default.
        parameters
            What else determines it.
        """
        identity = {} if fields is None else self.identity(*fields)

        def counted(folder: Path) -> dict:
            asked, answered = self.replies.asked, self.replies.answered
            facts = compute(folder) or {}
            asked, answered = self.replies.asked - asked, self.replies.answered - answered
            return facts | ({"prompts_asked": asked, "prompts_answered": answered} if asked else {})

        return run_stage(
            self.folder / name,
            counted,
            parameters={**identity, **parameters},
            upstream=(self.prompts_stage,) if upstream is None else upstream,
            version=version,
        )

    def settings(self, l_select: int, iterations: int, **changes) -> LoopSettings:
        """Return a loop's settings; `changes` replace fields of it or of its observations.

        C is that of the paper's SVMs, or of LLM-VA-R's where features have unit length.
        """
        params = self.params
        soft = changes.get("feature_scale") == "length"
        observation = ObservationSettings(
            sample_per_dataset=params.sample_per_dataset,
            solver=params.svm.solver,
            penalty=(params.ridge if soft else params.svm).penalty,
            seed=params.seed,
            neutral_weight=params.ridge.neutral_weight,
            damping=params.ridge.damping,
        )
        return LoopSettings(l_select, iterations, params.selection, observation).changed(**changes)
