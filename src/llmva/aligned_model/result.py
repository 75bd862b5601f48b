"""What `llmva.align` returns: a model's alignment to look at, to try on, to keep and to save."""

import html
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pandas
from matplotlib.figure import Figure
from transformers import PreTrainedModel

from llmva.aligned_model.choice import Chosen, evaluate_aligned
from llmva.aligned_model.drawing import draw_trade_off
from llmva.aligned_model.folder import AlignOptions, write_aligned
from llmva.aligned_model.report import summarise
from llmva.core.errors import InputError
from llmva.core.paths import user_path
from llmva.core.store import Stage
from llmva.edits.edited_model import EditedModel
from llmva.edits.log import EditLog
from llmva.models.in_memory import evaluating
from llmva.models.packed import require_unpacked
from llmva.study.loop_variants import read_loop
from llmva.study.study import Study


class Report:
    """A report to be shown in a notebook; `path` is its file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __repr__(self) -> str:
        return f"report: {self.path} (open it in a browser)"

    def _repr_html_(self) -> str:
        # In a frame of its own, so that neither style sheet reaches the other's page.
        text = html.escape(self.path.read_text(encoding="utf-8"))
        return f'<iframe srcdoc="{text}" style="width: 100%; height: 40em; border: 1px solid #ccc"></iframe>'


class Aligned:
    """A finished alignment of a model that is in memory; the model itself is as it was.

    Attributes
    ----------
    study : Study
        Its prompts, model, judge and folders.
    method : str
        "LLM-VA-R" or "LLM-VA".
    log : EditLog
        The chosen edits.
    beta : float
        How far the last edit was moved; 0 is the loop's own.
    """

    def __init__(self, study: Study, method: str, chosen: Chosen, evaluated: dict[str, Stage]) -> None:
        self.study, self.method = study, method
        self.log, self.beta = chosen.log, chosen.beta
        self._chosen, self._evaluated = chosen, evaluated
        self._merged = self._edited = False

    @property
    def history(self) -> pandas.DataFrame:
        """The loop's validation metrics by iteration, 0 being the original; `log` has those up to the chosen one."""
        return read_loop(self._chosen.loop).history

    @property
    def frontier(self) -> pandas.DataFrame:
        """Both failures and broken replies on validation prompts by beta; no row without a trade-off."""
        return self._chosen.show_trials()

    def summary(self) -> pandas.DataFrame:
        """Return rates and scores on the test prompts before and after, with 95 % intervals, as text."""
        return summarise(self._evaluated, self.study)

    def __repr__(self) -> str:
        return self.summary().to_string()

    def _repr_html_(self) -> str:
        return self.summary().to_html()

    def plot_frontier(self) -> Figure:
        """Draw both failures on validation prompts by beta, with intervals; see `TradeOff`.

        Raises
        ------
        InputError
            When the method has no trade-off, or nothing was edited.
        """
        if self._chosen.trials is None or len(self._chosen.trials) < 2:
            raise InputError(f"frontier: {self.method} has edited nothing that could be moved; see history")
        return draw_trade_off(self._chosen.trials, self.study.validation, self.beta)

    def at(self, beta: float) -> EditLog:
        """Return the edits with the last one moved: beta < 0 refuses more, > 0 answers more. It costs nothing.

        Raises
        ------
        InputError
            When the method has no trade-off, or beta is no number from -1 to 1, where the frontier was measured.
        """
        if self._chosen.trade_off is None:
            raise InputError(f"beta: {self.method} has no trade-off; use method='LLM-VA-R'")
        return self._chosen.trade_off.at(beta)

    @contextmanager
    def applied(self, beta: float | None = None) -> Iterator[PreTrainedModel]:
        """Edit the weights in place inside a `with` block; leaving restores them bit for bit.

        Raises
        ------
        InputError
            When the weights are not those that were aligned: of a block inside a block, after `merge`, or since
            someone else has changed them. So do `merge` and `save`.
        """
        self._require_original()
        with EditedModel(self.study.chat_model.writers) as edited:
            edited.apply(self.log if beta is None else self.at(beta))
            self._edited = True
            try:
                yield self.study.chat_model.model
            finally:
                self._edited = False

    def merge(self, beta: float | None = None) -> PreTrainedModel:
        """Edit the model's weights in place for good, and return it.

        Raises
        ------
        InputError
            When the weights are not those that were aligned; see `applied`. And when they are packed in 4 or 8 bits,
            which cannot hold edits.
        """
        self._require_original()
        require_unpacked(self.study.chat_model.model.config, "merge")
        EditedModel(self.study.chat_model.writers).apply(self.log if beta is None else self.at(beta))
        self._merged = True
        return self.study.chat_model.model

    def save(self, folder: str | Path, *, beta: float | None = None, checkpoint: bool = False) -> Path:
        """Write adapter, edit log, report, model card and manifest, and, if asked for, the whole edited model.

        With a beta of its own it answers the test prompts once more, since the report is of that model.

        Raises
        ------
        InputError
            When the folder holds something else, or cannot be written; a checkpoint is asked for of weights that are
            packed in 4 or 8 bits; or the weights are not those that were aligned, see `applied`.
        """
        self._require_original()
        if not isinstance(checkpoint, bool):
            fix = "choose True or False (`llmva align` writes GGUF, of a model that is named)"
            raise InputError(f"checkpoint: is {checkpoint!r}; {fix}")
        if checkpoint:
            require_unpacked(self.study.chat_model.model.config, "checkpoint")
        out = user_path(folder)
        options = AlignOptions(self.method, out, "1" if checkpoint else None)
        chosen, evaluated = self._chosen, self._evaluated
        if beta is not None and beta != self.beta:
            chosen = replace(chosen, log=self.at(beta), beta=float(beta))
            with evaluating(self.study.chat_model.model):
                evaluated = evaluate_aligned(self.study, self.method, chosen)
        return write_aligned(self.study, options, chosen, evaluated).folder

    def report(self) -> Report:
        """Return the report, which a notebook shows; it is written to the study's folder."""
        return Report(self.save(self.study.folder / "report") / "report.html")

    def _require_original(self) -> None:
        if self._merged:
            raise InputError("model: holds the edits for good already; save first and merge then, or load it again")
        if self._edited:
            raise InputError("model: holds the edits inside this `with` block; leave it first")
        self.study.held.require_original()
