"""Generation with capture: same activations as a plain pass, whatever the batch, and nothing left behind."""

from types import SimpleNamespace

import numpy
import pytest
import torch

from llmva.engines.greedy import respond
from llmva.models.activations import FINAL, Capture, recording
from llmva.models.batches import for_each_batch
from llmva.models.chat_model import encode_chats
from llmva.models.headroom import headroom_of
from llmva.models.likelihood import exchange_logits, reply_surprise
from llmva.models.reading import read_activations

EVERYTHING = Capture(outputs=True, inputs=True, final=True, blocks=True)


def _all_sites(activations):
    for site in ("outputs", "inputs", "blocks"):
        for name, values in getattr(activations, site).items():
            yield f"{site} {name}", values


def test_capture_in_generation_equals_a_separate_forward_pass(family_model, prompts):
    generated = respond(family_model, prompts, max_new_tokens=4, batch_size=3, capture=EVERYTHING).activations
    plain = read_activations(family_model, prompts, capture=EVERYTHING, batch_size=3)
    compared = dict(_all_sites(plain))
    assert len(compared) == 2 * 4 + 1 + 2
    for name, values in _all_sites(generated):
        numpy.testing.assert_allclose(values, compared[name], atol=2e-5, err_msg=name)


def test_capture_equals_hooks_on_a_single_unpadded_prompt(family_model, prompts):
    captured = read_activations(family_model, prompts, capture=EVERYTHING, batch_size=5)
    seen = {}
    module = family_model.writers["mlp.01"]
    handle = module.register_forward_hook(lambda _, inputs, output: seen.update(x=inputs[0], y=output))
    for row, ids in enumerate(encode_chats(family_model.tokenizer, prompts)):
        with torch.inference_mode():
            family_model.model(torch.tensor([ids]))
        numpy.testing.assert_allclose(captured.outputs["mlp.01"][row], seen["y"][0, -1].numpy(), atol=2e-5)
        numpy.testing.assert_allclose(captured.inputs["mlp.01"][row], seen["x"][0, -1].numpy(), atol=2e-5)
    handle.remove()


def test_activations_do_not_depend_on_neighbours_or_padding(family_model, prompts):
    together = read_activations(family_model, prompts, capture=Capture(), batch_size=5)
    alone = [read_activations(family_model, [prompt], capture=Capture(), batch_size=1) for prompt in prompts]
    for name, values in together.outputs.items():
        apart = numpy.concatenate([one.outputs[name] for one in alone])
        numpy.testing.assert_allclose(values, apart, atol=2e-5, err_msg=name)


def test_replies_come_back_in_input_order_and_do_not_depend_on_the_batch(family_model, prompts):
    whole = respond(family_model, prompts, max_new_tokens=6, batch_size=5).texts
    alone = [respond(family_model, [prompt], max_new_tokens=6, batch_size=1).texts[0] for prompt in prompts]
    assert whole == alone
    assert respond(family_model, prompts[::-1], max_new_tokens=6, batch_size=2).texts == whole[::-1]


def test_all_positions_end_with_the_last_one(llama, prompts):
    last = read_activations(llama, prompts, capture=Capture(), batch_size=2)
    every = read_activations(llama, prompts, capture=Capture(positions="all"), batch_size=2)
    lengths = [len(ids) for ids in encode_chats(llama.tokenizer, prompts)]
    assert every.lengths.tolist() == lengths and last.lengths.tolist() == [1] * len(prompts)
    ends = numpy.cumsum(lengths) - 1
    for name, values in every.outputs.items():
        assert len(values) == sum(lengths)
        numpy.testing.assert_allclose(values[ends], last.outputs[name], atol=2e-5)


def test_the_final_stream_is_what_the_norm_reads(llama, prompts):
    seen = []
    handle = llama.model.model.norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    captured = read_activations(llama, prompts[:1], capture=Capture(), batch_size=1).outputs[FINAL]
    handle.remove()
    numpy.testing.assert_allclose(captured, seen[0][:, -1].numpy(), atol=1e-6)


def test_hooks_come_off_even_after_an_error(llama):
    with pytest.raises(RuntimeError, match="on purpose"), recording(llama, EVERYTHING):
        raise RuntimeError("on purpose")
    modules = list(llama.model.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in modules)


def test_a_batch_that_does_not_fit_is_halved_and_nothing_is_lost(llama, prompts, monkeypatch):
    expected = respond(llama, prompts, max_new_tokens=3, batch_size=5, capture=Capture())
    forward, sizes = llama.model.forward, []

    def small_memory(*, input_ids, **options):
        if input_ids.shape[1] > 1:
            sizes.append(len(input_ids))
        if len(input_ids) > 2:
            raise torch.OutOfMemoryError("too large")
        return forward(input_ids=input_ids, **options)

    monkeypatch.setattr(llama.model, "forward", small_memory)
    halved = respond(llama, prompts, max_new_tokens=3, batch_size=5, capture=Capture())
    # Five fail, three fail, two fit, and the size that fitted is kept.
    assert halved.texts == expected.texts and sizes == [5, 3, 2, 2, 1]
    for name, values in expected.activations.outputs.items():
        numpy.testing.assert_allclose(halved.activations.outputs[name], values, atol=2e-5)


class MadeUpHeadroom:
    """Stands for a GPU that has room for so many rows, and says so by what the last batch took."""

    def __init__(self, room):
        self.room, self.taken = room, []

    def start(self):
        self.taken.append(0)

    def run(self, part):
        self.taken[-1] = len(part)
        if len(part) > self.room:
            raise torch.OutOfMemoryError("too large")

    def fits_twice(self):
        return 2 * self.taken[-1] <= self.room


@pytest.mark.parametrize(
    ("room", "sizes"),
    [
        (20, [4, 8, 16, 12]),
        # Twice the first batch fits not even once.
        (7, [4] * 10),
        # It begins too large, and what failed is not tried again.
        (3, [4, 2] + [2] * 19),
    ],
)
def test_batches_grow_to_what_memory_holds(room, sizes):
    headroom, seen = MadeUpHeadroom(room), []

    def run(part):
        headroom.run(part)
        seen.extend(part)

    for_each_batch(range(40), 4, run, headroom=headroom)
    assert headroom.taken == sizes and seen == list(range(40))


def test_a_cpu_has_no_headroom_since_its_results_repeat_exactly(llama):
    assert headroom_of(llama.model) is None


@pytest.mark.parametrize("capture", [EVERYTHING, Capture(inputs=True, blocks=True, positions="all")])
def test_memory_that_runs_out_in_the_middle_of_a_later_prefill_loses_and_doubles_nothing(llama, prompts, capture):
    prompts = [*prompts, *(f"{prompt} and then?" for prompt in prompts)]
    undisturbed = respond(llama, prompts, max_new_tokens=3, batch_size=3, capture=capture)
    prefills = []

    def run_out(module, inputs, output):
        # The first block has been recorded by now, the second one's MLP has not.
        if output.shape[1] > 1:
            prefills.append(len(output))
            if len(prefills) == 3:
                raise torch.OutOfMemoryError("on purpose")

    handle = llama.blocks[1].self_attn.register_forward_hook(lambda *args: run_out(*args[:2], args[2][0]))
    found = respond(llama, prompts, max_new_tokens=3, batch_size=3, capture=capture)
    handle.remove()
    # Two batches of three are done, the third one fails, and the four prompts left go two by two.
    assert prefills == [3, 3, 3, 2, 2]
    assert found.texts == undisturbed.texts
    assert found.activations.lengths.tolist() == undisturbed.activations.lengths.tolist()
    expected = dict(_all_sites(undisturbed.activations))
    assert [name for name, _ in _all_sites(found.activations)] == list(expected)
    for name, values in _all_sites(found.activations):
        numpy.testing.assert_allclose(values, expected[name], atol=2e-5, err_msg=name)


def test_one_prompt_that_does_not_fit_alone_is_told_and_leaves_nothing_behind(llama, prompts, monkeypatch):
    sizes = []

    def no_memory(*, input_ids, **_):
        sizes.append(len(input_ids))
        raise torch.OutOfMemoryError("too large")

    monkeypatch.setattr(llama.model, "forward", no_memory)
    with pytest.raises(torch.OutOfMemoryError, match="one prompt alone does not fit into memory; use a smaller model"):
        respond(llama, prompts, max_new_tokens=3, batch_size=5, capture=EVERYTHING)
    assert sizes == [5, 3, 2, 1]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in llama.model.modules())


def test_two_models_on_other_devices_are_read_in_the_same_batches(llama, prompts, monkeypatch):
    replies = ["sure, here is what you asked for.", "no", "", "i am sorry, but no.", "sure"]
    monkeypatch.setattr("llmva.models.batches.READ_TOKENS", 1)
    on_a_gpu = SimpleNamespace(device=torch.device("cuda"))
    assert len(list(exchange_logits(llama, prompts, replies, batch_size=5))) == 5
    assert len(list(exchange_logits(llama, prompts, replies, batch_size=5, batched_for=on_a_gpu))) == 1


def test_logits_that_do_not_fit_are_computed_in_halves_of_the_same_batch(llama, prompts, monkeypatch):
    replies = ["sure, here is what you asked for.", "no", "", "i am sorry, but no.", "sure"]
    expected = list(exchange_logits(llama, prompts, replies, batch_size=5))
    forward, sizes = llama.model.forward, []

    def small_memory(*, input_ids, **options):
        sizes.append(len(input_ids))
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError("too large")
        return forward(input_ids=input_ids, **options)

    monkeypatch.setattr(llama.model, "forward", small_memory)
    (halved,) = exchange_logits(llama, prompts, replies, batch_size=5)
    assert sizes == [5, 3, 2, 2, 1]
    torch.testing.assert_close(halved, expected[0], atol=2e-5, rtol=0)


def test_a_shipped_repetition_penalty_is_not_used(llama, prompts):
    expected = respond(llama, prompts, max_new_tokens=8, batch_size=5).texts
    llama.model.generation_config.repetition_penalty = 5.0
    assert respond(llama, prompts, max_new_tokens=8, batch_size=5).texts == expected


def test_surprise_is_the_mean_likelihood_after_the_first_token(llama, prompts):
    replies = ["sure, here is what you asked for.", "no", "", "i am sorry, but no.", "sure"]
    surprise = reply_surprise(llama, prompts, replies, batch_size=5)
    for row, (prompt, reply) in enumerate(zip(prompts, replies, strict=True)):
        start = encode_chats(llama.tokenizer, [prompt])[0]
        ids = llama.tokenizer(reply, add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            scores = llama.model(torch.tensor([start + ids])).logits[0].log_softmax(-1)
        losses = [-float(scores[len(start) + i - 1, ids[i]]) for i in range(1, len(ids))]
        assert surprise[row] == pytest.approx(numpy.mean(losses) if losses else 0.0, abs=1e-4)


def test_no_prompts_give_no_replies(llama):
    empty = respond(llama, [], max_new_tokens=2, batch_size=2, capture=Capture())
    assert empty.texts == [] and empty.activations is None
