"""What a study, or aligning one's own model, will cost in replies, hours, memory and disk."""

from dataclasses import dataclass

import pandas

from llmva.core.params import StudyParams
from llmva.core.vocabulary import LOOPS
from llmva.method.ridge_edit import NEUTRAL_TOKENS
from llmva.performance.machines import Machine
from llmva.performance.sizes import BYTES, Amounts, Shape
from llmva.steering.baselines.fine_tuning import EPOCHS, LEARNING_RATES
from llmva.steering.moved import BETAS
from llmva.steering.registry import METHODS
from llmva.study.ablations import NOISE_LEVELS
from llmva.study.llm_va_r import CONTROLS, PARTS
from llmva.study.loop_variants import LLM_VA_R

# Tokens: a prompt with its template, and what a guard reads (its own instructions, prompt and reply) and writes. Of
# Qwen3Guard-Gen's template about 330 stand before the exchange and 135 behind it.
PROMPT, GUARD_READS, GUARD_WRITES = 110, 703, 14
# What `make all` does not run.
APART = "13 parts of LLM-VA-R"
# Further variants of three methods are measured at the end as well.
VARIANTS = 3
# Settings on a method's front, on average over organisms.
FRONT = 4
UNEDITED = "unedited copy, which judges the language"


@dataclass(frozen=True)
class Plan:
    """What is to be run, and on what: the judge is None for one of words, the method that of `make align` or empty."""

    params: StudyParams
    model: Shape
    judge: Shape | None
    machine: Machine
    amounts: Amounts
    method: str = ""
    # What the CPU's memory is for.
    held: str = "activations and originals"

    def stages(self) -> pandas.DataFrame:
        """Return what each stage of a study, or each part of `make align`, asks of the machine.

        Returns
        -------
        DataFrame
            Indexed by stage: `looks` (how often prompts are answered), `replies`, `tokens` (read and written by the
            model) and `hours`.
        """
        if self.method:
            return self._cost(self._looks_of_alignment())
        table = self._cost(self._looks_of_study())
        tokens = len(LEARNING_RATES) * EPOCHS * self.amounts.train * self._length
        # A pass forwards, and backwards at most the work of two.
        table.loc["05 fine-tuning"] = [0, 0, tokens, self._reading_seconds(3 * tokens) / 3600]
        return table.sort_index()

    def memory(self) -> dict[str, float]:
        """Return the bytes that must be there at once: the copies of the model, the judge, and a batch's cache."""
        dtype, generation = self.params.dtype, self.params.generation
        weights = self.model.parameters * BYTES[dtype]
        logits = generation.batch_size * generation.max_new_tokens * self.model.vocabulary * BYTES[dtype]
        return {
            "model": weights,
            UNEDITED: weights,
            "judge": self.judge.parameters * BYTES[dtype] if self.judge else 0,
            "keys and values of a batch": generation.batch_size * self._length * self.model.cache_bytes(dtype),
            # Of every token of a batch's replies, twice: the edited model's and the unedited one's.
            "logits of a batch": 2 * logits,
        }

    def host_memory(self) -> float:
        """Return the bytes of the CPU's memory in a round of LLM-VA-R: activations, and edited weights' originals."""
        model = self.model
        read, written = model.heads * model.head_width + model.inner_width, 2 * model.width
        activations = 4 * model.blocks * (self._looked_at * (read + written) + NEUTRAL_TOKENS * read)
        return activations + model.blocks * model.width * read * BYTES[self.params.dtype]

    def disk(self) -> dict[str, float]:
        """Return the bytes that a study leaves on disk, or that `make align` does."""
        model, ridge, paper = self.model, self._ridge_rounds, self.params.iterations + self._probe_rounds
        rounds = {"": ridge + paper, LLM_VA_R.name: ridge}.get(self.method, paper)
        vectors = model.sublayers * 2 * (model.width + model.inner_width) * 4
        activations = self._looked_at * (model.sublayers + 1) * model.width * 4
        return {
            "weights, fetched": sum(each.parameters for each in (model, self.judge) if each) * BYTES[self.params.dtype],
            "activations": 0 if self.method == LLM_VA_R.name else activations,
            "vectors and edits": 2 * rounds * vectors,
        }

    @property
    def _length(self) -> int:
        """Tokens of a prompt and its longest reply."""
        return PROMPT + self.params.written

    @property
    def _looked_at(self) -> int:
        """Prompts of an iteration: its sample and all for validation."""
        return self.amounts.sample + self.amounts.validation

    @property
    def _probe_rounds(self) -> int:
        return len(self.params.probe.l_select) * self.params.probe.iterations

    @property
    def _ridge_rounds(self) -> int:
        return len(self.params.probe.l_select) * self.params.ridge.iterations

    def _looks_of_study(self) -> dict[str, tuple[int, int]]:
        """Return how often each stage looks, and at how many prompts."""
        # A loop looks at the original once, whatever its numbers of sublayers; the later iterations follow from these.
        params, both, validation = self.params, self._looked_at, self.amounts.validation
        ablations, probe = params.ablations, params.probe
        final = self.amounts.test + self.amounts.transfer + self.amounts.tasks
        turned = sum(degrees > 0 for degrees in ablations.degrees)
        parts, variants = len(PARTS) * len(probe.l_select) + len(CONTROLS), len(PARTS) + len(CONTROLS)
        return {
            "00 prompts": (1, self.amounts.candidates),
            "01 angles": (1, both),
            "03 layer selection": (1 + self._probe_rounds, both),
            "04 alignment loop": (params.iterations - probe.iterations, both),
            "05 LLM-VA-R": (1 + self._ridge_rounds, both),
            "05 released code's loop": (1 + params.iterations, both),
            "05 tuning of the baselines": ((len(METHODS) - 1) * params.trials, validation),
            "05, 06, 10 test, unseen sets, tasks": (len(METHODS) + len(LOOPS) + VARIANTS, final),
            "05 fronts of the baselines, test": ((len(METHODS) - 1) * FRONT, self.amounts.test),
            # One look at the original serves all angles and draws.
            "07 distorted vectors": (bool(turned) + turned * ablations.draws * probe.iterations, both),
            "08 further iterations": (max(0, ablations.iterations - params.iterations), both),
            "09 numbers of sublayers": (len(set(ablations.l_select) - set(probe.l_select)) * probe.iterations, both),
            "09 tasks": (len(set(ablations.l_select)), self.amounts.tasks),
            "11 two judges": (1 + probe.iterations, both),
            "11 noise": (len(NOISE_LEVELS), validation),
            "18 trade-off": (len(BETAS), validation),
            APART: (variants + parts * params.ridge.iterations, both),
            f"{APART}, test": (len(PARTS) + len(CONTROLS), final),
        }

    def _looks_of_alignment(self) -> dict[str, tuple[int, int]]:
        both, amounts = self._looked_at, self.amounts
        paper = {
            "first look": (1, both),
            "layer selection": (1 + self._probe_rounds, both),
            "alignment loop": (self.params.iterations - self.params.probe.iterations, both),
        }
        ours = {self.method: (1 + self._ridge_rounds, both), "the trade-off": (len(BETAS), amounts.validation)}
        return {
            "prompts": (1, amounts.candidates),
            **(ours if self.method == LLM_VA_R.name else paper),
            "before and after: test, tasks": (2, amounts.test + amounts.transfer + amounts.tasks),
        }

    def _cost(self, looks: dict[str, tuple[int, int]]) -> pandas.DataFrame:
        hours = [count * self._seconds(prompts) / 3600 for count, prompts in looks.values()]
        table = pandas.DataFrame.from_dict(looks, orient="index", columns=["looks", "prompts"]).rename_axis("stage")
        replies = table["looks"] * table.pop("prompts")
        return table.assign(replies=replies, tokens=replies * self._length, hours=hours)

    def _seconds(self, prompts: int) -> float:
        """Return the time to answer and judge prompts, and to judge the language of the replies."""
        batch, dtype = self.params.generation.batch_size, self.params.dtype
        written = self.params.written
        total = self.machine.answering_seconds(self.model, prompts, PROMPT, written, batch, dtype)
        if self.judge is not None:
            total += self.machine.answering_seconds(self.judge, prompts, GUARD_READS, GUARD_WRITES, batch, dtype)
        # The unedited copy reads every exchange once more.
        return total + self._reading_seconds(prompts * self._length)

    def _reading_seconds(self, tokens: int) -> float:
        return self.machine.seconds(2 * self.model.matrices * tokens, 0)
