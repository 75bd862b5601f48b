"""`llmva.align`: a model in memory and a table of prompts, by the same stages as the notebooks."""

import argparse
import tempfile
from pathlib import Path

import pandas
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from llmva.aligned_model.choice import choose_model, evaluate_aligned, read_preference, run_method
from llmva.aligned_model.folder import read_method
from llmva.aligned_model.params import assemble_params, name_study, read_judge, read_whole, require_judge
from llmva.aligned_model.result import Aligned
from llmva.core import paths
from llmva.core.errors import InputError
from llmva.core.params import SOFT_PENALTY, StudyParams
from llmva.core.provenance import digest
from llmva.core.store import require_writable
from llmva.core.vocabulary import OUR_LOOP
from llmva.models.in_memory import HeldModel, evaluating, hold
from llmva.prompts.files import require_texts
from llmva.prompts.sets import read_candidates, require_two_classes
from llmva.study.stages import collect_prompts
from llmva.study.study import Study

PROMPTS = "prompts.csv"
COLUMNS = ("prompt", "label", "dataset", "group", "split", "category")


def align(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: pandas.DataFrame,
    *,
    judge: str | Path = "refusals",
    mapping: str = "outcome",
    method: str = OUR_LOOP,
    prefer: str | float | None = None,
    seed: int = 0,
    batch_size: int = 64,
    max_new_tokens: int = 128,
    candidates: int = 1500,
    iterations: int = 30,
    penalty: float = SOFT_PENALTY,
    thinking: int | None = None,
) -> Aligned:
    """Align a chat model that is in memory: find the edits, choose among them, and test them.

    The model is left as it was; `Aligned.applied`, `merge` and `save` do something with the edits. What is computed is
    kept below `runs/` in the working folder, so that a call that is stopped resumes, and a second one takes seconds. A
    model with hooks, which may do anything, is computed anew each time.

    Parameters
    ----------
    model : PreTrainedModel
        Of transformers, dense, in float32, bfloat16 or float16; on a GPU also in 4 or 8 bits of bitsandbytes, to whose
        outputs the edits are then added.
    tokenizer : PreTrainedTokenizerBase
        With a chat template.
    prompts : DataFrame
        `prompt` and `label` (benign or toxic); optionally `dataset`, `group` and `split`, as `make align` takes them.
        Some hundreds of each label are enough. Up to 500 of a set are kept, the original's failures first and up to
        half of them, and split 8:1:1.
    judge : str or path
        `refusals`, which looks for what declines in a reply's first sentences; `phrases`, of which it must begin with
        one; or, better, the folder or hub id of a guard model in Qwen3Guard-Gen's format.
    mapping : str
        What a guard's lines mean: `outcome` or `refusal`.
    method : str
        "LLM-VA-R", ours, or "LLM-VA", the paper's.
    prefer : str or float, optional
        `safe`, `balanced`, `helpful`, or the weight of answered toxic prompts from 0 to 1; see `TradeOff`.
    seed : int
        Of the split and of all samples.
    batch_size : int
        Prompts that are answered at once.
    max_new_tokens : int
        Longest reply.
    candidates : int
        Prompts per set that the model answers first; those that it fails on are preferred.
    iterations : int
        Of the loop; LLM-VA-R makes 12 at most.
    penalty : float
        C of LLM-VA-R's SVMs.
    thinking : int, optional
        Of a thinking model: the tokens that it may think for before it answers. Activations are then read behind the
        thinking; without it, before.

    Raises
    ------
    InputError
        When model, prompts or an option cannot be used: one line that names it and the fix.
    """
    method = read_method(method)
    weight = read_preference(prefer, method)
    options = argparse.Namespace(
        mapping=mapping,
        seed=read_whole("seed", seed),
        threads=torch.get_num_threads(),
        batch_size=read_whole("batch_size", batch_size),
        max_new_tokens=read_whole("max_new_tokens", max_new_tokens),
        candidates=read_whole("candidates", candidates),
        iterations=read_whole("iterations", iterations),
        penalty=penalty,
        thinking=None if thinking is None else read_whole("thinking", thinking),
    )
    held = hold(model, tokenizer)
    options.dtype = str(model.dtype).removeprefix("torch.")
    study = Study(_params(held, read_judge(judge), prompts, options), held)
    with evaluating(model):
        collect_prompts(study)
        chosen = choose_model(study, method, run_method(study, method), weight)
        return Aligned(study, method, chosen, evaluate_aligned(study, method, chosen))


def _params(held: HeldModel, judge: str, prompts: pandas.DataFrame, options: argparse.Namespace) -> StudyParams:
    require_judge(judge, options.mapping)
    if not isinstance(prompts, pandas.DataFrame):
        raise InputError(f"prompts: is a {type(prompts).__name__}; give a DataFrame with prompt and label")
    if absent := [name for name in ("prompt", "label") if name not in prompts]:
        raise InputError(f"prompts: no column {absent[0]!r}; name the columns prompt and label (benign or toxic)")
    table = prompts[[name for name in COLUMNS if name in prompts]]
    _require_usable(table)
    name = held.chat_model.source
    slug = name_study(name, held.key, judge, digest(table.astype(str).to_numpy().tolist()), options)
    path = paths.RUNS / slug / PROMPTS
    config = held.chat_model.model.config.get_text_config()
    params = assemble_params(options, slug=slug, model=name, judge=judge, data=str(path), config=config)
    require_writable(path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    paths.write_texts(path, table)
    return params


def _require_usable(table: pandas.DataFrame) -> None:
    """Raise an `InputError` for prompts that cannot be used, before anything lies in the working folder."""
    if twice := [name for name in COLUMNS if list(table.columns).count(name) > 1]:
        raise InputError(f"prompts: two columns are named {twice[0]!r}; give one of them another name")
    require_texts(table, ("prompt",), "prompts")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / PROMPTS
        paths.write_texts(path, table)
        try:
            require_two_classes(read_candidates(path), "prompts")
        except InputError as error:
            raise InputError(str(error).replace(str(path), "prompts")) from None
