"""Hooks on the residual stream: the right positions, nothing left behind; and the base of methods that set them."""

import numpy
import pytest
import torch
from test_steering import replies_of, training_of

from llmva.engines.greedy import respond
from llmva.models.activations import Capture
from llmva.models.batches import pad
from llmva.models.chat_model import encode_chats
from llmva.models.reading import read_activations
from llmva.steering.base import residuals_of
from llmva.steering.residual import ResidualMethod, add_where, changed_residuals


def follow(chat_model, prompts, *, use_cache):
    """Return every pass that a generation of four tokens makes."""
    batch = pad(chat_model, encode_chats(chat_model.tokenizer, prompts))
    seen = []
    with changed_residuals(chat_model, {}, before=lambda now, options: seen.append(now)):
        chat_model.model.generate(**batch, max_new_tokens=4, do_sample=False, use_cache=use_cache,
                                  eos_token_id=None, pad_token_id=0)  # fmt: skip
    return seen, batch["attention_mask"]


def test_a_decoding_step_from_the_cache_holds_no_prompt(llama, prompts):
    seen, mask = follow(llama, prompts, use_cache=True)
    assert seen[0].prompt.equal(mask.bool()) and seen[0].last == mask.shape[1] - 1
    assert [step.prompt.shape[1] for step in seen[1:]] == [1, 1, 1]
    assert all(step.last is None and step.generated.all() and not step.prompt.any() for step in seen[1:])


def test_without_a_cache_the_prompt_is_known_again_in_every_pass(llama, prompts):
    seen, mask = follow(llama, prompts, use_cache=False)
    width = mask.shape[1]
    for number, step in enumerate(seen):
        assert step.prompt[:, :width].equal(mask.bool()) and not step.prompt[:, width:].any()
        assert step.generated[:, width:].all() and not step.generated[:, :width].any()
        assert step.last == width - 1 and step.prompt.shape[1] == width + number


def test_a_second_prompt_that_continues_the_first_is_a_prompt(llama):
    tokens = torch.arange(4, 14)[None]
    seen = []
    with torch.no_grad(), changed_residuals(llama, {}, before=lambda now, options: seen.append(now)):
        llama.model.generate(tokens[:, :5], max_new_tokens=3, do_sample=False, eos_token_id=None, pad_token_id=0)
        llama.model(input_ids=tokens)
    assert seen[-1].last == 9 and seen[-1].prompt.all()


@pytest.mark.parametrize("site", [0, 1, 2])
def test_a_step_is_added_where_it_is_asked_for(family_model, prompts, site):
    capture = Capture(outputs=False, blocks=True)
    before = residuals_of(read_activations(family_model, prompts, capture=capture, batch_size=5))
    step = torch.linspace(-1, 1, before[0].shape[1])
    changes = {site: lambda hidden, now: add_where(hidden, now.prompt, step)}
    with changed_residuals(family_model, changes):
        after = residuals_of(read_activations(family_model, prompts, capture=capture, batch_size=5))
    assert after[site] - before[site] == pytest.approx(step.numpy()[None].repeat(5, 0), abs=2e-5)
    for earlier in range(site):
        assert (after[earlier] == before[earlier]).all()


def test_hooks_come_off_even_after_an_error(llama, prompts):
    plain = respond(llama, prompts, max_new_tokens=4, batch_size=5).texts

    def fail(hidden, now):
        raise RuntimeError

    with pytest.raises(RuntimeError), changed_residuals(llama, {0: fail, 2: fail}):
        respond(llama, prompts, max_new_tokens=4, batch_size=5)
    assert respond(llama, prompts, max_new_tokens=4, batch_size=5).texts == plain
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in llama.model.modules())


def test_a_nested_pass_is_neither_changed_nor_followed(llama):
    tokens, calls, logits = torch.arange(4, 12)[None], [], []

    def before(now, options):
        calls.append(now)
        logits.append(llama.model(input_ids=options["input_ids"]).logits)

    with torch.no_grad():
        plain = llama.model(input_ids=tokens).logits
        with changed_residuals(llama, {1: lambda hidden, now: hidden * 2}, before=before):
            changed = llama.model(input_ids=tokens).logits
    assert len(calls) == 1 and logits[0].equal(plain) and not changed.equal(plain)


def test_contributions_of_all_sublayers_are_changed_on_their_way_into_the_stream(family_model, prompts):
    capture = Capture(blocks=True, basis="residual")
    changes = {"changes": {}, "contributions": lambda hidden, now: hidden * 0}
    with changed_residuals(family_model, **changes):
        read = read_activations(family_model, prompts, capture=capture, batch_size=5)
    for site, stream in residuals_of(read).items():
        assert (stream == read.blocks[0]).all(), site


# A method of a few lines


class Toy(ResidualMethod):
    """A step along the first axis at block inputs, as long as the mean residual."""

    name, version = "Toy", 1
    spans = {"late": (0.5, 1.0), "all": (0.0, 1.0)}
    weakest, strongest = 0.1, 1.0

    def _fit(self, training):
        axis = numpy.eye(training.residuals[0].shape[1], dtype=numpy.float32)[0]
        self.steps = {site: numpy.linalg.norm(rows, axis=1).mean() * axis for site, rows in training.residuals.items()}

    def _steered(self, chat_model, setting):
        def adding(step):
            return lambda hidden, now: add_where(hidden, now.prompt | now.generated, step)

        steps = {site: torch.from_numpy(setting["strength"] * self.steps[site]) for site in self._blocks(setting)}
        return changed_residuals(chat_model, {site: adding(step) for site, step in steps.items()})


def test_the_base_makes_a_method_of_what_is_fitted_and_how_it_steers(llama, prompts):
    toy, plain = Toy(), replies_of(llama, prompts)
    assert (toy.outcome, toy.hooks, toy.finetunes) == ("not fitted", True, False)
    assert toy.search_space(9) == [{"strength": 0.0}]
    toy.fit(training_of(llama, prompts))
    settings = toy.search_space(9)
    assert toy.outcome == "fitted" and len(settings) == 9 and settings[0] == {"strength": 0.0}
    assert settings[1:3] == [{"span": "late", "strength": 1.0}, {"span": "all", "strength": 0.7197}]
    with toy.applied(llama, settings[1]):
        assert replies_of(llama, prompts) != plain
    with toy.applied(llama, settings[0]):
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in llama.model.modules())
        assert replies_of(llama, prompts) == plain


def test_what_the_base_cannot_fit_is_a_named_outcome_and_steers_nothing(llama, prompts):
    toy = Toy()
    toy.fit(training_of(llama, prompts, verdicts="answered"))
    assert toy.outcome == "one class" and toy.search_space(9) == [{"strength": 0.0}]
