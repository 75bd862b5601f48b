"""Fine-tuning: a low-rank adapter (LoRA), trained on the responses that the model should have given."""

import copy
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple

import numpy
import torch
from torch.nn.utils.rnn import pad_sequence

from llmva.core.progress import progress_bar
from llmva.core.provenance import random_generator, seed_for
from llmva.engines.greedy import respond
from llmva.models.batches import memory_errors, pad
from llmva.models.chat_model import ChatModel, encode_texts, encode_with_replies
from llmva.models.packed import require_unpacked
from llmva.models.templates import written_behind_reply
from llmva.steering.base import FITTED, NOT_FITTED, SteeringMethod, TrainingData

# The middle rate comes first, since the first ones get the trials left over.
LEARNING_RATES = (1e-3, 3e-4, 3e-3)
EPOCHS, ROWS_PER_STEP, WARM_UP_SHARE = 4, 32, 0.05
RANK, ALPHA = 8, 16
OPENING_WORDS = 2

# By module: A, (rank, d_in), and B, (d_out, rank), both float32 on the CPU.
Factors = dict[str, tuple[torch.Tensor, torch.Tensor]]


class Exchange(NamedTuple):
    """The token ids of a prompt and its reply, and the index of the first reply token."""

    ids: list[int]
    reply_start: int


class FineTuning(SteeringMethod):
    """LoRA on every linear layer of the blocks (Hu et al. 2021), merged into the weights.

    The desired responses are the model's own (see `desired_responses`), so no text has to be supplied. Validation
    chooses the learning rate and the step, which is early stopping. A learning rate is trained when one of its
    steps is first applied; what comes out depends on the training data, the seed, the rate and the step alone.
    """

    name = "Fine-tuning"
    version = 1
    reads = "right replies, and right ones after an opening"
    acts = "low-rank factors on all linear layers"
    finetunes = True
    outcome = NOT_FITTED
    _planned: Collection[tuple[float, int]] = ()

    def fit(self, training: TrainingData) -> None:
        """Write the desired responses; training itself waits until a setting is applied."""
        labels = set(training.rows["label"]) - set(training.rows["label"][training.right])
        self.outcome = f"no right {' or '.join(sorted(labels))} reply" if labels else FITTED
        if labels:
            return
        self._training, self._snapshots = training, {}
        prompts, replies = training.rows["prompt"].tolist(), desired_responses(training)
        self._exchanges = encode_exchanges(training.chat_model, prompts, replies, batch_size=training.batch_size)

    def search_space(self, trials: int) -> list[dict]:
        """Return the unedited model, step 0, and for each learning rate evenly spaced steps, `trials` in all.

        Fewer where training is so short that it has not as many steps.
        """
        settings = [{"learning_rate": 0.0, "step": 0}]
        if self.outcome == FITTED:
            total = count_steps(len(self._exchanges))
            shares = [len(part) for part in numpy.array_split(range(trials - 1), len(LEARNING_RATES))]
            for rate, share in zip(LEARNING_RATES, shares, strict=True):
                steps = numpy.unique(numpy.linspace(0, total, share + 1).round().astype(int)[1:])
                settings += [{"learning_rate": rate, "step": step} for step in steps.tolist()]
        self._planned = {(setting["learning_rate"], setting["step"]) for setting in settings if setting["step"]}
        return settings

    def applied(self, chat_model: ChatModel, setting: dict) -> AbstractContextManager:
        """Add the trained factors to the weights in place; leaving restores them bit for bit."""
        return merged(chat_model, self.factors(**setting) if setting["step"] else {})

    def factors(self, learning_rate: float, step: int) -> Factors:
        """Return the factors after a step; the learning rate is trained if that has not been done yet."""
        if (learning_rate, step) not in self._snapshots:
            steps = {other for rate, other in self._planned if rate == learning_rate} | {step}
            trained = train_factors(
                self._training.chat_model,
                self._exchanges,
                learning_rate=learning_rate,
                steps=steps,
                seed=self._training.seed,
                progress=f"fine-tuning at {learning_rate:g}",
            )
            self._snapshots |= {(learning_rate, number): factors for number, factors in trained.items()}
        return self._snapshots[learning_rate, step]


def desired_responses(training: TrainingData) -> list[str]:
    """Return what the model should have said to each training prompt.

    A prompt that was handled rightly (benign and answered, toxic and refused) keeps its own response. For the
    others the model goes on from a forced opening: the first words of a right response, drawn at random, to a
    prompt of the same data set, or, where it has none, of the same label. A broken or unparsed response counts
    as wrong.
    """
    rows, right = training.rows, training.right
    responses = rows["response"].to_numpy(dtype=object, copy=True)
    wrong = numpy.flatnonzero(~right)
    longest = max(map(len, encode_texts(training.chat_model.tokenizer, responses.tolist())))
    generator = random_generator(training.seed, "fine-tuning", "openings")
    openings = []
    for row in rows.iloc[wrong].itertuples():
        # A question of facts is answered in other words than a request for help.
        alike = right & (rows["dataset"] == row.dataset).to_numpy()
        examples = responses[alike if alike.any() else right & (rows["label"] == row.label).to_numpy()]
        openings.append(" ".join(generator.choice(examples).split()[:OPENING_WORDS]))
    responses[wrong] = respond(
        training.chat_model,
        rows["prompt"].iloc[wrong].tolist(),
        max_new_tokens=longest,
        batch_size=training.batch_size,
        openings=openings,
    ).texts
    return responses.tolist()


def encode_exchanges(
    chat_model: ChatModel, prompts: Sequence[str], replies: Sequence[str], *, batch_size: int
) -> list[Exchange]:
    """Encode prompts and replies as the chat template writes them, with the end of the reply.

    The longest replies may have been cut off. They get an end only if the model would end there, or it would
    learn to stop in the middle of a sentence.
    """
    sequences, tails = encode_with_replies(chat_model.tokenizer, prompts, replies)
    lengths = numpy.array([len(tail) for tail in tails])
    longest = numpy.flatnonzero(lengths == lengths.max())
    going_on = respond(
        chat_model,
        [prompts[index] for index in longest],
        max_new_tokens=1,
        batch_size=batch_size,
        openings=[replies[index] for index in longest],
    ).texts
    cut_off = {index for index, text in zip(longest, going_on, strict=True) if text != replies[index].strip()}
    end = _end_token(chat_model)
    return [
        Exchange(sequence + ([] if index in cut_off else [end]), len(sequence) - len(tail))
        for index, (sequence, tail) in enumerate(zip(sequences, tails, strict=True))
    ]


def count_steps(exchanges: int) -> int:
    """Return the number of optimiser steps of a whole training."""
    return EPOCHS * -(-exchanges // ROWS_PER_STEP)


def train_factors(
    chat_model: ChatModel,
    exchanges: Sequence[Exchange],
    *,
    learning_rate: float,
    steps: Collection[int],
    seed: int,
    progress: str | None = None,
) -> dict[int, Factors]:
    """Train an adapter on a copy of the model and return its factors after the steps asked for.

    AdamW on the mean cross-entropy of the reply tokens. The rate rises over the first steps and falls to zero
    at the end of the last epoch, whichever steps are asked for.
    """
    adapted = _with_adapter(chat_model, seed)
    trained = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=learning_rate, weight_decay=0.0)
    total = count_steps(len(exchanges))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, total))
    batches, rows_at_once, snapshots = _batches(exchanges, seed), ROWS_PER_STEP, {}
    for step in progress_bar(progress, range(1, max(steps) + 1)):
        rows_at_once = _accumulate(adapted, next(batches), chat_model, rows_at_once)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step in steps:
            snapshots[step] = _factors_of(adapted)
    return snapshots


@contextmanager
def merged(chat_model: ChatModel, factors: Factors) -> Iterator[None]:
    """Set each weight to W + (alpha / rank) B A inside the block, cast once; leaving restores it bit for bit."""
    require_unpacked(chat_model.model.config, "Fine-tuning")
    weights = {name: chat_model.model.get_submodule(name).weight for name in factors}
    originals = {name: weight.detach().clone() for name, weight in weights.items()}
    try:
        with torch.no_grad():
            for name, (A, B) in factors.items():
                exact = originals[name].to(torch.promote_types(originals[name].dtype, torch.float32))
                weights[name].copy_(exact + ALPHA / RANK * B.to(exact) @ A.to(exact))
        yield
    finally:
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(originals[name])


def _end_token(chat_model: ChatModel) -> int:
    # Not always the tokenizer's own: Gemma's template ends a turn otherwise than a text.
    tokenizer, configured = chat_model.tokenizer, chat_model.model.generation_config.eos_token_id
    ends = {tokenizer.eos_token_id, *(configured if isinstance(configured, list) else [configured])}
    after = written_behind_reply(tokenizer)
    return next((token for token in encode_texts(tokenizer, [after])[0] if token in ends), tokenizer.eos_token_id)


def _with_adapter(chat_model: ChatModel, seed: int) -> torch.nn.Module:
    from peft import LoraConfig, get_peft_model  # Takes seconds to import.

    settings = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM")
    device = chat_model.model.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # Of transformers, about what peft asks it.
        torch.manual_seed(seed_for(seed, "fine-tuning", "factors"))
        return get_peft_model(copy.deepcopy(chat_model.model), settings).eval()


def _factors_of(adapted: torch.nn.Module) -> Factors:
    prefix, adapter = "base_model.model.", "default"
    return {
        name.removeprefix(prefix): tuple(
            part[adapter].weight.detach().to("cpu", torch.float32, copy=True) for part in (module.lora_A, module.lora_B)
        )
        for name, module in adapted.named_modules()
        if hasattr(module, "lora_A")
    }


def _batches(exchanges: Sequence[Exchange], seed: int) -> Iterator[list[Exchange]]:
    generator = random_generator(seed, "fine-tuning", "batches")
    while True:
        # Shuffled, then sorted: rows of equal length meet other neighbours in each epoch.
        order = sorted(generator.permutation(len(exchanges)), key=lambda index: len(exchanges[index].ids))
        starts = generator.permutation(range(0, len(order), ROWS_PER_STEP))
        for start in starts:
            yield [exchanges[index] for index in order[start : start + ROWS_PER_STEP]]


def _accumulate(adapted: torch.nn.Module, batch: list[Exchange], chat_model: ChatModel, rows_at_once: int) -> int:
    """Leave the gradients of a batch's mean loss; return the number of rows that fitted into memory at once."""
    tokens = sum(len(exchange.ids) - exchange.reply_start for exchange in batch)
    while True:
        try:
            with memory_errors():
                for start in range(0, len(batch), rows_at_once):
                    part = _pad(batch[start : start + rows_at_once], chat_model)
                    adapted(**part, use_cache=False, num_items_in_batch=tokens).loss.backward()
            return rows_at_once
        except torch.OutOfMemoryError:
            if rows_at_once == 1:
                raise
            rows_at_once //= 2
            adapted.zero_grad()
            torch.cuda.empty_cache()


def _pad(batch: list[Exchange], chat_model: ChatModel) -> dict[str, torch.Tensor]:
    # The loss leaves out what is marked -100.
    marked = [torch.tensor([-100] * start + ids[start:]) for ids, start in batch]
    labels = pad_sequence(marked, batch_first=True, padding_value=-100).to(chat_model.device)
    return {**pad(chat_model, [ids for ids, _ in batch], "right"), "labels": labels}


def _rate(step: int, total: int) -> float:
    # Transformers' linear schedule starts at 0, so that a first step would be lost, and is not this one shifted.
    warm_up = max(1, round(WARM_UP_SHARE * total))
    return min((step + 1) / warm_up, (total - step) / max(1, total - warm_up))
