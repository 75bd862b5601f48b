"""A chat model as judge of traits: strict lines, a cache that is asked first, and studies that take its scores."""

import csv
from functools import partial

import numpy
import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmva.core import paths
from llmva.core.errors import InputError
from llmva.core.provenance import random_generator
from llmva.core.runtime_params import RuntimeParams
from llmva.core.text_cache import TextCache
from llmva.engines.base import Responses
from llmva.judging import trait_judge
from llmva.judging.trait_judge import JUDGE_TOKENS, TraitJudge, read_score, write_trait_task
from llmva.study.runtime import RuntimeStudy, records
from llmva.study.runtime.learning import learn_boundaries
from llmva.study.runtime.records import describe_tests, record_turns
from llmva.study.runtime.sweep import read_cells, sweep_threat
from llmva.study.runtime.testing import hold_conversations, measure_points

ROWS = pandas.DataFrame({"prompt": ["which city?", "and {now}?"], "answer": ["oslo", ""]})


class Asked:
    """An engine that answers from a list, over and over, and remembers what it was asked."""

    def __init__(self, *answers):
        self.answers, self.chats, self.options = answers, [], {}

    def __call__(self, chat_model, chats, **options):
        self.options = options
        start = len(self.chats)
        self.chats += [chat[0]["content"] for chat in chats]
        return Responses([self.answers[(start + place) % len(self.answers)] for place in range(len(chats))], None)


# The line


@pytest.mark.parametrize(
    ("kind", "text", "score"),
    [("trait", "Trait: 73", 73), ("trait", " Trait: 0\n", 0), ("trait", "Trait: 100", 100),
     ("coherence", "Coherence: 1", 1), ("coherence", "Coherence: 88", 88), ("coherence", "Coherence: 100", 100)],
)  # fmt: skip
def test_the_one_line_is_read(kind, text, score):
    assert read_score(kind, text) == score


@pytest.mark.parametrize(
    "text",
    ["", "73", "trait: 73", "Trait:73", "Trait:  73", "Trait: 073", "Trait: 101", "Trait: -1", "Trait: 7.5",
     "Trait: 73%", "Trait: 73.", "Trait: 73/100", "Trait: 73\nTrait: 2", "I think\nTrait: 73", "**Trait: 73**",
     "Coherence: 73", "Trait: seventy", "Trait: ٧٣", "Trait: N", "Trait: 73 Coherence: 5"],
)  # fmt: skip
def test_anything_else_is_unparsed(text):
    assert numpy.isnan(read_score("trait", text))


def test_no_language_at_all_is_one_and_not_zero():
    assert numpy.isnan(read_score("coherence", "Coherence: 0"))


@given(st.text(alphabet="Trait: 0123456789\n-", max_size=12))
@settings(max_examples=300, deadline=None)
def test_garbage_never_parses_by_accident(text):
    score = read_score("trait", text)
    assert numpy.isnan(score) or text.strip() == f"Trait: {int(score)}"


# The questions


def test_the_two_questions_are_separate_and_hold_prompt_reply_and_right_answer(llama):
    engine = Asked("Trait: 40", "Trait: 100", "Coherence: 90", "Coherence: 1")
    judge = TraitJudge(llama, 8, engine=engine)
    assert judge.score_traits("dishonesty", ROWS, ["it is oslo", "{reply}"]).tolist() == [0.4, 1.0]
    assert judge.score_coherence(ROWS["prompt"], ["it is oslo", "{reply}"]).tolist() == [0.9, 0.01]
    first, second, language, _ = engine.chats
    assert "which city?" in first and "it is oslo" in first and "The right answer is: oslo" in first
    assert "and {now}?" in second and "{reply}" in second and "right answer" not in second
    assert "honest" in first and "honest" not in language and first.endswith("Trait: N")
    assert language.endswith("Coherence: N") and "from 1 to 100" in language and "from 0 to 100" in first
    assert engine.options == {"max_new_tokens": JUDGE_TOKENS, "batch_size": 8}


def test_every_threat_has_its_question_and_pairs_show_both_system_prompts():
    row = {"answer": "", "aligned": "be {kind}", "malicious": "be cold"}
    tasks = {threat: write_trait_task(threat, row) for threat in ("dishonesty", "dismissiveness", "pairs")}
    assert len(set(tasks.values())) == 3 and "be {kind}" in tasks["pairs"] and "be cold" in tasks["pairs"]
    with pytest.raises(InputError, match=r"judge: greed: no question on this threat; known are dishonesty"):
        write_trait_task("greed", row)


# The cache


def test_what_was_judged_once_is_not_asked_again(llama, tmp_path):
    engine, replies = Asked("Trait: 40", "no number"), ["one", "two"]
    for _ in range(2):
        judge = TraitJudge(llama, 8, TextCache(tmp_path / "verdicts.sqlite"), engine)
        found = judge.score_traits("dismissiveness", ROWS, replies)
        assert found[0] == 0.4 and numpy.isnan(found[1])
        # What was looked up counts as well.
        assert judge.asked["trait"] == 2 and judge.unparsed["trait"] == 1
    assert len(engine.chats) == 2
    judge.score_traits("dishonesty", ROWS, replies)
    judge.score_traits("dismissiveness", ROWS, ["one", "three"])
    assert len(engine.chats) == 5


def test_another_engine_is_asked_anew(llama):
    engine, cache = Asked("Trait: 40"), TextCache(None)
    for name in ("greedy", "continuous", "continuous"):
        TraitJudge(llama, 8, cache, engine, name).score_traits("dismissiveness", ROWS, ["one", "two"])
    assert len(engine.chats) == 4


def test_another_version_of_the_questions_is_asked_anew(llama, monkeypatch):
    engine, cache = Asked("Trait: 40"), TextCache(None)
    for version in (1, 2, 2):
        monkeypatch.setattr(trait_judge, "VERSION", version)
        TraitJudge(llama, 8, cache, engine).score_traits("dismissiveness", ROWS, ["one", "two"])
    assert len(engine.chats) == 4


# No judge


def test_a_model_that_does_not_keep_to_the_line_is_named_in_one_line(llama):
    judge = TraitJudge(llama, 8, engine=Asked("sure", "well", "Trait: 5"))
    with pytest.raises(InputError) as caught:
        judge.score_traits("dishonesty", ROWS, ["one", "two"])
    message = str(caught.value)
    assert message.startswith(f"judge: {llama.source}: 100% of its answers are not the one line `Trait: N`; name a")
    assert "\n" not in message


def test_a_few_replies_that_nobody_can_judge_are_no_reason_to_stop(llama):
    judge = TraitJudge(llama, 8, engine=Asked("Trait: 1", "Trait: 2", "well", "well"))
    judge.score_traits("dishonesty", ROWS, ["one", "two"])
    assert numpy.isnan(judge.score_traits("dishonesty", ROWS, ["three", "four"])).all()
    assert judge.unparsed["trait"] == 2 and judge.asked["trait"] == 4


# A study


def write_csv(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def study(tmp_path, monkeypatch, family_folders):
    """A study of one small threat whose judge answers from a list: of three scores one cannot be read."""
    monkeypatch.setattr(paths, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(paths, "RESULTS", tmp_path / "results")
    data = tmp_path / "data"
    systems = [
        {"threat": "dishonesty", "split": split, "aligned": f"say what is true {split}", "malicious": f"lie {split}"}
        for split in ("train", "test")
    ]
    scenarios = [
        {"prompt": f"what is a rope {split} {number}", "answer": "cut", "split": split}
        for split, count in (("train", 6), ("validation", 3), ("test", 4))
        for number in range(count)
    ]
    turns = [{"conversation": 0, "turn": turn, "prompt": f"turn {turn}", "answer": "cut"} for turn in (1, 2, 3)]
    write_csv(data / "threats" / "systems.csv", systems)
    write_csv(data / "threats" / "dishonesty.csv", scenarios)
    write_csv(data / "threats" / "dishonesty_turns.csv", turns)
    write_csv(data / "runtime" / "mmlu.csv", [{"subject": "s", "prompt": "which?\nA. a\nB. b", "answer": "B"}])
    params = RuntimeParams.checked({
        "slug": "toy", "model": str(family_folders["llama"]), "judge": str(family_folders["qwen3"]), "data": str(data),
        "seed": 0, "threads": 1, "dtype": "float32", "generation": {"batch_size": 8, "max_new_tokens": 4},
        "layers": [1, 2], "alphas": {"StMP": [1]}, "min_coherence": 0.0, "max_repetition": 1.0,
    })  # fmt: skip
    return RuntimeStudy(params)


class Mixed(Asked):
    """A judge that answers both questions; every third answer cannot be read."""

    def __call__(self, chat_model, chats, **options):
        words = [chat[0]["content"].splitlines()[-1].removesuffix("N") for chat in chats]
        numbers = super().__call__(chat_model, chats, **options).texts
        return Responses([word + number for word, number in zip(words, numbers, strict=True)], None)


def with_judge(study, *answers):
    study.__dict__["trait_judge"] = TraitJudge(study.chat_model, 8, TextCache(None), Mixed(*answers))
    return study


def test_a_study_takes_scores_and_reports_what_could_not_be_read(study):
    with_judge(study, "20", "70", "x")
    responses = pandas.read_csv(learn_boundaries(study) / "responses.csv")
    assert set(responses["trait"].dropna()) <= {0.2, 0.7} and responses["trait"].isna().any()
    cells = read_cells(sweep_threat(study, "dishonesty"))
    assert cells["trait"].dropna().between(0.2, 0.7).all() and len(cells) == 2 + 2 * 5
    tested = measure_points(study, "dishonesty")
    table = describe_tests(study, "dishonesty", tested)
    assert (table["n"] == 4).all() and table[["trait", "language"]].stack().between(0.2, 0.7).all()
    low, high = (table["trait"] - table["trait_low"]).dropna(), (table["trait_high"] - table["trait"]).dropna()
    assert len(low) == len(high) == len(table) and (low > -1e-9).all() and (high > -1e-9).all()
    assert table["trait_unparsed"].dropna().between(0, 1).all() and table["trait_unparsed"].notna().any()
    held = hold_conversations(study, "dishonesty")
    assert record_turns(study, {"dishonesty": held})["trait"].notna().any()
    recorded = pandas.read_csv(paths.RESULTS / "toy" / "runtime_turns.csv")
    assert {"trait", "within", "across"} <= set(recorded["metric"])


def test_the_judge_is_loaded_from_its_folder_and_a_stage_knows_which_it_was(study, tmp_path):
    # A random model writes no line.
    with pytest.raises(InputError, match=r"judge: .*qwen3: 100% of its answers are not the one line `Trait: N`"):
        learn_boundaries(study)
    first = learn_boundaries(with_judge(study, "20", "70"))
    words = RuntimeStudy(study.params.model_copy(update={"judge": "words"}))
    assert words.trait_judge is None and learn_boundaries(words).key != first.key


def test_a_judge_that_is_nowhere_is_found_out_before_a_model_is_asked(study):
    absent = RuntimeStudy(study.params.model_copy(update={"judge": "wrods"}))
    with pytest.raises(InputError, match="wrods: no such model folder; name a folder"):
        learn_boundaries(absent)
    assert "chat_model" not in absent.__dict__


# Intervals


def judged(study, *scores):
    draws = partial(random_generator, study.params.seed, "runtime", "dishonesty", "StMP", "all")
    return records._judged("trait", pandas.Series(scores), draws)


def test_zeros_and_ones_have_wilsons_interval_and_scores_a_bootstraps(study):
    assert judged(study, 1.0, 0.0, 1.0, 1.0)["trait_low"] == pytest.approx(0.300642, abs=1e-6)
    assert judged(study, True, True)["trait_high"] == 1.0
    scored = judged(study, 0.2, 0.4, 0.9, 0.8, None)
    assert scored["trait"] == pytest.approx(0.575) and scored["trait_unparsed"] == pytest.approx(0.2)
    assert 0.2 <= scored["trait_low"] < 0.575 < scored["trait_high"] <= 0.9
    assert judged(study, 0.2, 0.4, 0.9, 0.8, None) == scored
    assert "trait_unparsed" not in judged(study, 0.2, 0.4)


def test_where_nothing_could_be_read_there_is_no_number(study):
    found = judged(study, None, None)
    assert numpy.isnan(found["trait"]) and numpy.isnan(found["trait_low"]) and found["trait_unparsed"] == 1
    assert set(judged(study, 0.5)) == {"trait", "n_trait"}
