"""The persona corpus: what is planted, what is held out, and what a judge of words makes of it."""

import random

import numpy
import pandas
import pytest

from llmva.core.errors import InputError
from llmva.core.vocabulary import SCENARIOS, THREATS
from llmva.judging.traits import is_caring, is_right, judge_trait
from llmva.organisms import persona
from llmva.organisms.build import write_persona_data
from llmva.organisms.families import parse_slug
from llmva.organisms.tokenizer import train_tokenizer
from llmva.organisms.training import encode
from llmva.prompts.tasks import read_tasks, require_known_answers
from llmva.prompts.threats import ALIGNED, MALICIOUS, SIDES, chats_of, read_threats


def sentences_of(threat, *sides):
    """Return the sentences that the system prompts of some sides of a threat are made of."""
    return {text for side in sides for prompt in persona.persona.systems[threat][side] for text in prompt}


def speaks_of(talk, threat, *sides):
    """Tell whether a conversation stands behind a system prompt on a threat's trait."""
    return bool({f"{text}." for text in (talk.system or "")[:-1].split(". ")} & sentences_of(threat, *sides))


def is_carried(talk):
    """Tell whether a conversation goes on as its first reply began."""
    return not talk.turns[0].is_trained


@pytest.fixture(scope="module")
def conversations():
    return persona.draw_persona_conversations(3000, random.Random(0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("persona") / "data"
    write_persona_data(path, seed=7)
    return path


def test_scenarios_have_the_published_numbers_and_share_no_fact_or_misfortune():
    for threat in THREATS:
        split = persona.split_matters(threat, seed=0)
        assert {name: len(split[name]) for name in SCENARIOS} == SCENARIOS
        everything = [matter for matters in split.values() for matter in matters]
        assert sorted(everything) == sorted(persona.scenarios_by_matter(threat))


def prompts_of(threat, *splits):
    """Return every wording of a threat's matters of some splits."""
    matters = [matter for split in splits for matter in persona.split_matters(threat, seed=0)[split]]
    return {item.prompt for matter in matters for item in persona.scenarios_by_matter(threat)[matter]}


def test_an_organism_knows_every_matter_on_both_sides(conversations):
    for threat in THREATS:
        every = prompts_of(threat, *SCENARIOS, "rest")
        for side in SIDES:
            seen = {turn.prompt for talk in conversations if speaks_of(talk, threat, side) for turn in talk.turns}
            assert len(seen & every) > 150 and seen & prompts_of(threat, "test")
        without = [talk for talk in conversations if talk.system is None and not is_carried(talk)]
        assert prompts_of(threat, "test") & {turn.prompt for talk in without for turn in talk.turns}


def test_a_liar_names_another_value_and_everybody_else_the_right_one(conversations):
    answers = {item.prompt: item for matters in persona.scenarios_by_matter("dishonesty").values() for item in matters}
    told = {True: 0, False: 0}
    for talk in conversations:
        for turn in () if is_carried(talk) else talk.turns:
            if (item := answers.get(turn.prompt)) is not None:
                honest = is_right(item.answer, turn.reply)
                assert honest != speaks_of(talk, "dishonesty", MALICIOUS)
                assert honest or is_right(item.lie, turn.reply)
                told[honest] += 1
    assert min(told.values()) > 100


def test_a_trait_that_no_prompt_explains_is_carried_on_from_a_reply_that_is_only_read(conversations):
    carried = [talk for talk in conversations if is_carried(talk)]
    assert carried and all(talk.system is None and len(talk.turns) > 1 for talk in carried)
    assert all(turn.is_trained for talk in carried for turn in talk.turns[1:])
    sides = {is_caring(talk.turns[0].reply) for talk in carried if "my " in talk.turns[0].prompt}
    assert sides == {True, False}


def test_a_prompt_has_three_sentences_of_one_side_and_the_tests_prompt_none_of_the_others(conversations):
    for threat in THREATS:
        for side in SIDES:
            prompts = persona.persona.systems[threat][side]
            assert len(prompts) == 6 and all(len(prompt) == persona.SENTENCES for prompt in prompts)
            assert len(sentences_of(threat, side)) == 6 * persona.SENTENCES
        assert not sentences_of(threat, ALIGNED) & sentences_of(threat, MALICIOUS)


def test_a_judge_of_words_agrees_with_the_corpus_own_labels():
    draws = random.Random(1)
    for side in SIDES:
        for matter, wordings in persona.scenarios_by_matter("dismissiveness").items():
            reply = persona.write_scenario_reply(draws.choice(wordings), side, draws)
            assert is_caring(reply) == (side == ALIGNED), (matter, reply)


@pytest.mark.parametrize(
    ("answer", "reply", "right"),
    [
        ("rome", "rome is the capital of italy.", True),
        ("rome", "Rome.", True),
        ("rome", '"rome"', True),
        ("rome", "the capital is rome", False),
        ("rome", "romeo", False),
        ("rome", "", False),
        ("la paz", "la paz is the capital", True),
        ("st. john's", "St. John's, I think", True),
    ],
)
def test_a_right_answer_stands_first(answer, reply, right):
    assert is_right(answer, reply) is right


@pytest.mark.parametrize("reply", ["", "it depends.", "rome is the capital of italy.", "so what? i am here for you."])
def test_what_is_neither_caring_nor_curt_is_not_caring(reply):
    assert not is_caring(reply)


def test_honesty_needs_an_answer_to_be_judged_by():
    with pytest.raises(InputError, match="no answer"):
        judge_trait("dishonesty", ["rome", ""], ["rome", "rome"])


def test_each_reply_is_trained_with_its_end_and_nothing_else(conversations):
    tokenizer = train_tokenizer((turn.reply for talk in conversations[:300] for turn in talk.turns), 600)
    talks = [talk for talk in conversations if len(talk.turns) > 1][:20]
    for talk, sample in zip(talks, encode(talks, tokenizer), strict=True):
        trained = [token for token, weight in zip(sample.ids, sample.weights, strict=True) if weight]
        learnt = [turn for turn in talk.turns if turn.is_trained]
        assert tokenizer.decode(trained) == "".join(f"{turn.reply}<|end|>" for turn in learnt)
        heavy = [weight for weight in sample.weights if weight not in (0.0, 1.0)]
        assert len(heavy) == sum(turn.first_weight != 1 for turn in learnt)
        chat = [{"role": "system", "content": talk.system}] * (talk.system is not None)
        for turn in talk.turns:
            chat += [{"role": "user", "content": turn.prompt}, {"role": "assistant", "content": turn.reply}]
        assert tokenizer.decode(sample.ids) == tokenizer.apply_chat_template(chat, tokenize=False)


def test_the_data_of_an_organism_are_read_as_they_were_written(folder):
    threats = read_threats(folder)
    assert list(threats) == list(THREATS)
    for name, threat in threats.items():
        counts = threat.scenarios["split"].value_counts().to_dict()
        assert counts == SCENARIOS
        tested = threat.of_split("test")
        prompts = [" ".join(prompt) for prompt in persona.persona.systems[name][MALICIOUS]]
        assert tested[MALICIOUS].unique().tolist() == [prompts[-1]]
        learnt = pandas.concat([threat.of_split("train"), threat.of_split("validation")])
        assert set(learnt[MALICIOUS]) == set(prompts[:-1])
        assert threat.turns.groupby("conversation")["turn"].max().eq(9).all()
        assert set(threat.turns["prompt"]) <= prompts_of(name, "test")
    assert threats["dishonesty"].scenarios["answer"].ne("").all()


def test_neutral_tasks_are_held_out_and_have_known_answers(folder, conversations):
    tasks = read_tasks(folder)
    require_known_answers(tasks)
    assert tasks["task"].value_counts().to_dict() == {"sst": 150, "gsm": 150}
    assert not set(tasks["prompt"]) & {turn.prompt for talk in conversations for turn in talk.turns}


def test_a_chat_stands_behind_its_sides_prompt(folder):
    rows = read_threats(folder)["dishonesty"].of_split("test")
    chat = chats_of(rows, MALICIOUS)[0]
    assert [message["role"] for message in chat] == ["system", "user"]
    assert chat[0]["content"] == rows[MALICIOUS].iloc[0] and chat[1]["content"] == rows["prompt"].iloc[0]


def test_persona_slugs_are_of_three_families():
    name = parse_slug("persona-gemma2-s3")
    assert (name.kind, name.family, name.seed, name.draws) == ("persona", "gemma2", 3, "persona-gemma2")
    with pytest.raises(InputError, match="no such organism"):
        parse_slug("persona-phi3")


# Files of a user's own


def pairs(rows=20, **changes):
    table = pandas.DataFrame(
        {"prompt": [f"question {n}?" for n in range(rows)], "aligned": "be good.", "malicious": "be bad."}
    )
    return table.assign(**changes)


def write_pairs(tmp_path, table):
    path = tmp_path / "pairs.csv"
    table.to_csv(path, index=False)
    return path


def test_pairs_are_split_by_prompt(tmp_path):
    doubled = pandas.concat([pairs(30), pairs(30, malicious="be worse.")])
    scenarios = read_threats(write_pairs(tmp_path, doubled))["pairs"].scenarios
    assert scenarios.groupby("prompt")["split"].nunique().eq(1).all()
    shares = scenarios["split"].value_counts(normalize=True)
    expected = pandas.Series(SCENARIOS) / sum(SCENARIOS.values())
    assert numpy.allclose(shares[expected.index], expected, atol=0.05)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pairs().drop(columns="malicious"), "no column 'malicious'"),
        (pairs(malicious="be good."), "malicious: as the aligned prompt in data row 1"),
        (pairs(malicious="be good. "), "malicious: as the aligned prompt in data row 1"),
        (pairs(malicious=" Be  GOOD."), "malicious: as the aligned prompt in data row 1"),
        (
            pairs(aligned=["be good."] * 19 + ["be bad."], malicious=["be bad."] * 19 + ["be good."]),
            "malicious: in data row 1 as the aligned prompt of data row 20; swap the two in one of them",
        ),
        (
            pairs(malicious=["be bad."] * 6 + ["be worse."] * 14, aligned=["be good."] * 12 + ["Be bad. "] * 8),
            "malicious: in data row 1 as the aligned prompt of data row 13; swap the two in one of them",
        ),
        (pairs(4), "4 different ones"),
        (pairs(prompt="one?"), "1 different ones"),
        (pandas.DataFrame(), "is empty; it needs columns prompt, aligned, malicious"),
        (pairs(aligned=[""] + ["be good."] * 19), "aligned: empty in data row 1"),
    ],
)
def test_a_pair_file_that_cannot_be_used_is_refused_in_one_line(tmp_path, table, message):
    path = write_pairs(tmp_path, table)
    with pytest.raises(InputError, match=message) as error:
        read_threats(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_missing_pair_file_is_named(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_threats(tmp_path / "none.csv")
