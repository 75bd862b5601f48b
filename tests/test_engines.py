"""The engines: greedy decoding equals `generate`, drafts change no reply, and nothing is answered twice."""

from contextlib import contextmanager
from dataclasses import replace

import numpy
import pytest
import torch

from llmva.core.text_cache import TextCache
from llmva.engines import greedy, hugging_face
from llmva.engines.drafts import MAX_DRAFTS, Drafts
from llmva.engines.memory import ReplyMemory
from llmva.judging.degeneracy import DegeneracyCheck
from llmva.models.activations import Capture
from llmva.models.chat_model import encode_chats
from llmva.models.state import model_state

ASKED = {"max_new_tokens": 7, "batch_size": 4}
CAPTURES = [Capture(inputs=True, blocks=True), Capture(positions="all")]


@pytest.fixture
def asked(prompts):
    """More prompts than a batch holds."""
    return [*prompts, *(f"{prompt} and then what?" for prompt in prompts), "hi"]


@pytest.fixture
def ending(family_model, asked):
    """A model of each family in turn that ends its replies after one to seven tokens, or not at all."""
    for name, weight in family_model.model.named_parameters():
        if name.endswith("bias"):
            # They drown the prompt, and every reply would be the same.
            weight.data.zero_()
    with _watched(family_model) as passes:
        hugging_face.respond(family_model, asked, max_new_tokens=7, batch_size=len(asked))
    replies = torch.cat([passes[0]["logits"][:, -1:].argmax(-1), *(seen["input_ids"] for seen in passes[2:])], dim=1)

    def steps(token):
        return {(row.tolist() + [token]).index(token) for row in replies}

    # The token that rows reach at the most different times, and one more.
    ends = sorted(set(replies.flatten().tolist()), key=lambda token: -len(steps(token)))[:2]
    assert len(steps(ends[0])) > 1
    family_model.model.generation_config.eos_token_id = ends
    return family_model


@contextmanager
def _watched(chat_model):
    """Keep the inputs and the logits of every pass."""
    passes = []

    def keep(_, inputs, options, output):
        passes.append({"input_ids": options["input_ids"], "logits": output.logits})

    handle = chat_model.model.register_forward_hook(keep, with_kwargs=True)
    yield passes
    handle.remove()


@contextmanager
def _edited(chat_model, seed):
    """Change every weight that an edit may change, and bring all back."""
    generator, originals = torch.Generator().manual_seed(seed), {}
    for name, module in chat_model.writers.items():
        originals[name] = module.weight.detach().clone()
        noise = torch.randn(module.weight.shape, generator=generator)
        module.weight.data += 0.5 * float(module.weight.detach().std()) * noise
    yield
    for name, module in chat_model.writers.items():
        module.weight.data.copy_(originals[name])


def _require_same(found, expected, atol=0.0):
    assert found.texts == expected.texts
    for site in ("outputs", "inputs", "blocks"):
        rows, wanted = getattr(found.activations, site), getattr(expected.activations, site)
        assert list(rows) == list(wanted)
        for name in wanted:
            numpy.testing.assert_allclose(rows[name], wanted[name], rtol=0, atol=atol, err_msg=f"{site} {name}")
    assert found.activations.lengths.tolist() == expected.activations.lengths.tolist()


@pytest.mark.parametrize("capture", CAPTURES, ids=["last", "all"])
@pytest.mark.parametrize("edit", [None, 1, 2])
def test_greedy_gives_the_texts_and_rows_of_generate_with_and_without_drafts(ending, asked, capture, edit):
    drafts = Drafts()
    greedy.respond(ending, asked, **ASKED, drafts=drafts)
    with _edited(ending, edit) if edit else _edited(ending, 0):
        expected = hugging_face.respond(ending, asked, **ASKED, capture=capture)
        # Drafts of another model first, of which some hold and some do not; then the model's own.
        for known in (None, drafts, drafts):
            _require_same(greedy.respond(ending, asked, **ASKED, capture=capture, drafts=known), expected)


def test_replies_that_end_at_different_times_leave_the_batch(ending, asked):
    with _watched(ending) as passes:
        greedy.respond(ending, asked, max_new_tokens=7, batch_size=len(asked))
    widths = [len(seen["input_ids"]) for seen in passes]
    assert widths[0] == len(asked) and widths == sorted(widths, reverse=True) and widths[-1] < len(asked)


def test_a_known_reply_costs_one_pass_more_than_its_prompt(ending, asked):
    drafts, alone = Drafts(), {"max_new_tokens": 7, "batch_size": len(asked)}
    expected = greedy.respond(ending, asked, **alone, drafts=drafts).texts
    with _watched(ending) as passes:
        assert greedy.respond(ending, asked, **alone, drafts=drafts).texts == expected
    assert len(passes) == 2


@pytest.mark.parametrize("spoil", ["a token", "the end", "longer", "shorter"])
def test_a_wrong_draft_changes_no_reply(ending, asked, spoil):
    drafts, spoilt = Drafts(), Drafts()
    expected = greedy.respond(ending, asked, **ASKED, drafts=drafts).texts
    for prompt, (reply, *_) in drafts._known.items():
        other = (max(reply) + 1) % ending.model.config.vocab_size
        wrong = {
            "a token": (*reply[:-1], other),
            "the end": reply[:1] if len(reply) > 1 else (*reply, other),
            "longer": (*reply, other, other),
            "shorter": reply[:-1] or reply,
        }[spoil]
        spoilt.add(prompt, wrong)
    assert greedy.respond(ending, asked, **ASKED, drafts=spoilt).texts == expected


def test_drafts_are_the_newest_that_begin_alike_and_few():
    drafts = Drafts()
    for number in range(MAX_DRAFTS + 3):
        drafts.add([1, 2], [7, number])
    drafts.add([1, 2], [8, 0])
    drafts.add([1, 2], [7, 5])
    assert drafts.find([1, 2], 7) == (7, 5) and drafts.find((1, 2), 8) == (8, 0)
    assert drafts.find([1, 2], 9) is None and drafts.find([2], 7) is None
    assert len(drafts._known[1, 2]) == MAX_DRAFTS


def test_padding_that_is_an_end_token_ends_no_draft(ending, asked):
    # Real tokenizers often pad with the end token.
    ending.model.generation_config.eos_token_id.append(ending.tokenizer.pad_token_id)
    drafts = Drafts()
    expected = hugging_face.respond(ending, asked, **ASKED).texts
    for _ in range(2):
        assert greedy.respond(ending, asked, **ASKED, drafts=drafts).texts == expected


SHARED = "read the following words with care and say in one line what they are about and nothing else at all: "


def test_what_all_prompts_begin_with_is_read_once(ending, asked, monkeypatch):
    long = [f"{SHARED * 2}{prompt}" for prompt in asked]
    encoded = encode_chats(ending.tokenizer, long)
    shared = greedy.count_shared(ending, encoded, 7)
    assert shared >= greedy.MIN_SHARED and len({tuple(tokens[:shared]) for tokens in encoded}) == 1
    with _watched(ending):
        # While a hook is on nothing is shared.
        assert greedy.count_shared(ending, encoded, 7) == 0
    read, kind = [], type(ending.model)
    forward = kind.forward

    def watched(self, **options):
        read.append(options["input_ids"].shape)
        return forward(self, **options)

    # A `forward` of the model's own would count as a hook.
    monkeypatch.setattr(kind, "forward", watched)
    for known in (None, drafts := Drafts(), drafts):
        found = greedy.respond(ending, long, **ASKED, drafts=known)
        assert found.texts == hugging_face.respond(ending, long, **ASKED).texts
    assert read[0] == (1, shared) and read[1][0] == 4 and read[1][1] < max(map(len, encoded)) - shared + 1


def test_short_beginnings_and_windows_in_reach_are_not_shared(llama, asked, monkeypatch):
    encoded = encode_chats(llama.tokenizer, [f"{SHARED * 2}{prompt}" for prompt in asked])
    assert greedy.count_shared(llama, encode_chats(llama.tokenizer, asked), 7) == 0
    assert greedy.count_shared(llama, encoded[:1], 7) == 0 < greedy.count_shared(llama, encoded, 7)
    llama.model.config.layer_types = ["sliding_attention"] * llama.model.config.num_hidden_layers
    for window, shares in ((len(max(encoded, key=len)) + 7, False), (1000, True)):
        llama.model.config.sliding_window = window
        assert bool(greedy.count_shared(llama, encoded, 7)) == shares


def test_openings_are_part_of_the_reply_and_no_prompts_give_none(ending, asked):
    options = {**ASKED, "openings": ["sure, here"] * len(asked)}
    expected = hugging_face.respond(ending, asked, **options).texts
    assert greedy.respond(ending, asked, **options).texts == expected
    assert greedy.respond(ending, [], **ASKED).texts == []


def test_a_model_without_rows_of_keys_and_values_is_given_to_generate(llama, prompts, monkeypatch):
    expected = greedy.respond(llama, prompts, **ASKED).texts
    monkeypatch.setattr(greedy, "_has_rows", lambda chat_model: False)
    generate, calls = llama.model.generate, []
    monkeypatch.setattr(llama.model, "generate", lambda **options: calls.append(1) or generate(**options))
    assert greedy.respond(llama, prompts, **ASKED).texts == expected and len(calls) == 2


def test_a_reply_is_never_asked_for_twice_of_the_same_state(llama, prompts, tmp_path):
    memory = ReplyMemory(tmp_path / "replies.sqlite")
    first = memory.respond(llama, prompts, **ASKED).texts
    with _watched(llama):
        # A hook is on: what it does to the replies cannot be told, so nothing is remembered.
        memory.respond(llama, prompts, **ASKED)
    assert (memory.asked, memory.answered) == (10, 10)
    assert memory.respond(llama, [*prompts, "and you?"], **ASKED).texts[:5] == first
    assert (memory.asked, memory.answered) == (16, 11)
    later = ReplyMemory(tmp_path / "replies.sqlite")
    assert later.respond(llama, prompts[::-1], **ASKED).texts == first[::-1] and later.answered == 0
    longer = later.respond(llama, prompts, max_new_tokens=9, batch_size=4).texts
    assert later.answered == 5 and all(text.startswith(start[:3]) for text, start in zip(longer, first, strict=True))


def test_a_reply_with_a_forced_opening_is_not_remembered(llama, prompts):
    memory, opened = ReplyMemory(), {**ASKED, "openings": ["sure,"] * len(prompts)}
    plain = memory.respond(llama, prompts, **ASKED).texts
    assert memory.respond(llama, prompts, **opened).texts == greedy.respond(llama, prompts, **opened).texts != plain
    assert memory.respond(llama, prompts, **ASKED).texts == plain and memory.answered == 2 * len(prompts)


def test_another_state_is_asked_anew_and_the_first_one_is_known_again(llama, prompts):
    memory = ReplyMemory()
    first = memory.respond(llama, prompts, **ASKED).texts
    with _edited(llama, 3):
        edited = memory.respond(llama, prompts, **ASKED).texts
        assert edited == hugging_face.respond(llama, prompts, **ASKED).texts != first
    assert memory.answered == 10
    assert memory.respond(llama, prompts, **ASKED).texts == first and memory.answered == 10


def test_a_cpu_is_given_no_drafts(llama, prompts, monkeypatch):
    memory, seen, respond = ReplyMemory(), [], greedy.respond
    monkeypatch.setattr(greedy, "respond", lambda *options, **more: seen.append(more) or respond(*options, **more))
    for _ in range(2):
        memory.respond(llama, [*prompts, f"and {len(seen)}?"], **ASKED)
    assert [more["drafts"] for more in seen] == [None, None] and not memory._drafts._known


@pytest.mark.parametrize("capture", CAPTURES, ids=["last", "all"])
def test_known_replies_are_only_read_for_a_capture(family_model, prompts, capture):
    memory = ReplyMemory()
    expected = memory.respond(family_model, prompts, **ASKED, capture=capture)
    with _watched(family_model) as passes:
        # The hook of the watch itself would hide the state.
        family_model.model._forward_hooks.clear()
        found = memory.respond(family_model, prompts, **ASKED, capture=capture)
    assert not passes and memory.answered == len(prompts)
    _require_same(found, expected)


def test_a_state_is_told_by_every_bit_of_the_weights(llama):
    before, weight = model_state(llama), llama.model.model.layers[1].mlp.up_proj.weight.data
    assert before == model_state(llama) is not None
    value = weight[0, 0].clone()
    weight[0, 0] = torch.nextafter(value, value + 1)
    assert model_state(llama) != before
    weight[0, 0] = value
    assert model_state(llama) == before
    weight[[0, 1]] = weight[[1, 0]]
    assert model_state(llama) != before
    weight[[0, 1]] = weight[[1, 0]]
    assert model_state(llama) == before


def test_a_state_is_told_by_its_configuration(llama):
    before = model_state(llama)
    llama.model.config.rope_parameters = {"rope_type": "default", "rope_theta": 5000.0}
    assert model_state(llama) != before


def test_a_state_with_hooks_or_an_adapter_cannot_be_told(llama):
    handle = llama.blocks[0].register_forward_pre_hook(lambda *_: None)
    assert model_state(llama) is None
    handle.remove()
    assert model_state(llama) is not None
    llama.model._hf_peft_config_loaded = True
    assert model_state(llama) is None


def test_a_reply_surprises_once(llama, prompts, tmp_path, monkeypatch):
    from llmva.judging import degeneracy

    read, replies = [], ["sure, here is a rope"] * len(prompts)
    score = degeneracy.reply_surprise

    def counted(chat_model, prompts, replies, **options):
        read.extend(prompts)
        return score(chat_model, prompts, replies, **options)

    monkeypatch.setattr(degeneracy, "reply_surprise", counted)
    check = DegeneracyCheck.calibrated(llama, prompts, replies, 4, TextCache(tmp_path / "surprises.sqlite"))
    later = replace(check, cache=TextCache(tmp_path / "surprises.sqlite"))
    assert later._surprise(prompts, replies).tolist() == check._surprise(prompts, replies).tolist()
    assert read == list(dict.fromkeys(prompts))


def test_encoded_turns_follow_the_template(llama):
    first = encode_chats(llama.tokenizer, ["hi", [{"role": "user", "content": "hi"}], "what?"])
    assert first[0] == first[1] != first[2]
    llama.tokenizer.chat_template = llama.tokenizer.chat_template.replace("<|assistant|>", "<|user|>")
    assert encode_chats(llama.tokenizer, ["hi"])[0] != first[0]


def test_settings_that_a_model_ships_beside_its_ends_change_no_reply(ending, asked):
    expected = hugging_face.respond(ending, asked, **ASKED).texts
    shipped = ending.model.generation_config
    shipped.update(min_new_tokens=6, suppress_tokens=list(range(40)), repetition_penalty=3.0, num_beams=2)
    assert hugging_face.respond(ending, asked, **ASKED).texts == expected
    assert greedy.respond(ending, asked, **ASKED).texts == expected
    assert ending.model.generation_config is shipped and shipped.min_new_tokens == 6


@pytest.mark.parametrize("kind", ["longrope", "dynamic"])
def test_positions_that_change_with_the_length_are_left_to_generate(llama, prompts, monkeypatch, kind):
    expected, calls = greedy.respond(llama, prompts, **ASKED).texts, []
    monkeypatch.setattr(hugging_face, "respond", lambda *_, **__: calls.append(1))
    longest = max(map(len, encode_chats(llama.tokenizer, prompts))) + ASKED["max_new_tokens"]
    rope = llama.model.config.rope_parameters
    rope |= {"rope_type": kind, "original_max_position_embeddings": longest}
    assert greedy.respond(llama, prompts, **ASKED).texts == expected
    rope |= {"original_max_position_embeddings": longest - 1}
    assert greedy.respond(llama, prompts, **ASKED) is None and calls == [1]


def test_a_remembered_reply_is_a_draft_with_the_end_that_chats_have(llama, prompts, monkeypatch):
    memory, seen = ReplyMemory(), []
    # As off the CPU.
    monkeypatch.setattr(memory, "_usable_drafts", lambda _: memory._drafts)
    memory.respond(llama, prompts, **ASKED)
    own, respond = llama.tokenizer.eos_token_id, greedy.respond
    llama.model.generation_config.eos_token_id = [own + 1, own]

    def said(*options, drafts, **more):
        seen.append(drafts)
        return replace(respond(*options, drafts=Drafts(), **more), texts=["yes"] * len(options[1]))

    monkeypatch.setattr(greedy, "respond", said)
    memory.respond(llama, prompts, **ASKED)
    memory.respond(llama, prompts, **ASKED)
    (prompt,), tail = (
        encode_chats(llama.tokenizer, prompts[:1]),
        llama.tokenizer.encode("yes", add_special_tokens=False),
    )
    assert seen[-1].find(prompt, tail[0]) == (*tail, own)
    # At the limit there is no end: the draft is what a reply could be.
    memory.respond(llama, prompts, max_new_tokens=len(tail), batch_size=4)
    memory.respond(llama, prompts, max_new_tokens=len(tail), batch_size=4)
    assert seen[-1].find(prompt, tail[0]) == tuple(tail)
