"""No method learns from what it is tested on: base prompts keep to one split, transfer words to their sets.

The organisms themselves and their guard are trained on prompts of all kinds, as real models are.
"""

import re

import pandas
import pytest

from llmva.core.vocabulary import SAFETY_SETS, TRANSFER_SETS
from llmva.organisms.build import write_data_sets
from llmva.organisms.corpus import prompt_space
from llmva.organisms.vocabulary import words as vocabulary
from llmva.prompts.pools import assign_splits, draw_candidates, errors_first_pool, read_transfer_sets
from llmva.prompts.sets import read_candidates
from llmva.prompts.tasks import read_tasks

TRANSFER_WORDS = (
    *vocabulary.transfer_trigger_verbs, *vocabulary.transfer_calm_verbs, *vocabulary.transfer_harmless_things,
    *vocabulary.transfer_harmed_things, *vocabulary.transfer_borderline_things, *vocabulary.transfer_topics,
)  # fmt: skip
TRANSFER_TEMPLATES = (
    *vocabulary.advbench_open_templates, *vocabulary.advbench_closed_templates, *vocabulary.advbench_topic_templates,
    *vocabulary.orbench_templates, *vocabulary.xstest_open_templates, *vocabulary.xstest_closed_templates,
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_data_sets(folder, seed=0)
    return folder


@pytest.fixture(scope="module")
def pool(data):
    candidates = draw_candidates(read_candidates(data), 1500, seed=0)
    candidates["split"] = assign_splits(candidates, seed=0)
    wrong = pandas.Series([index % 3 == 0 for index in range(len(candidates))], index=candidates["id"])
    return errors_first_pool(candidates, wrong, size=500, error_share={}, seed=0)


def test_no_base_prompt_stands_on_two_sides_of_a_split(pool):
    assert set(pool["split"]) == {"train", "validation", "test"}
    assert pool.groupby("group")["split"].nunique().max() == 1
    # A wrapped prompt's group is the prompt inside it, so the sets share groups, and these too keep to one side.
    sets_by_group = pool.groupby("group")["dataset"].nunique()
    assert (sets_by_group > 1).any()


def test_no_prompt_text_stands_in_two_splits(pool):
    assert pool.groupby("prompt")["split"].nunique().max() == 1


@pytest.mark.parametrize("dataset", SAFETY_SETS)
def test_no_word_or_template_of_the_transfer_sets_occurs_in_what_methods_learn_from(dataset):
    words = re.compile(rf"\b({'|'.join(map(re.escape, TRANSFER_WORDS))})s?\b")
    frames = [re.escape(template).replace(r"\{verb\}", ".+").replace(r"\{thing\}", ".+").replace(r"\{topic\}", ".+")
              for template in TRANSFER_TEMPLATES]  # fmt: skip
    templates = re.compile("|".join(frames))
    prompts = [item.prompt for item in prompt_space(dataset)]
    assert not [prompt for prompt in prompts if words.search(prompt)]
    assert not [prompt for prompt in prompts if templates.fullmatch(prompt)]


def test_neither_neutral_text_nor_tasks_hold_what_the_transfer_sets_hold(data):
    words = re.compile(rf"\b({'|'.join(map(re.escape, TRANSFER_WORDS))})s?\b")
    transfer = set(read_transfer_sets(data, 100, seed=0)["prompt"])
    tasks = {split: read_tasks(data, split=split) for split in ("test", "neutral")}
    for table in tasks.values():
        assert len(table) and not [prompt for prompt in table["prompt"] if words.search(prompt)]
        assert not transfer & set(table["prompt"])
    # What an edit leaves alone is not what its utility is measured on.
    assert not set(tasks["test"]["prompt"]) & set(tasks["neutral"]["prompt"])


def test_the_check_would_see_transfer_words():
    words = re.compile(rf"\b({'|'.join(map(re.escape, TRANSFER_WORDS))})s?\b")
    assert all(words.search(item.prompt) for name in TRANSFER_SETS for item in prompt_space(name))


def test_transfer_prompts_are_drawn_from_their_sets_and_none_is_in_the_pool(data, pool):
    transfer = read_transfer_sets(data, 100, seed=0)
    assert transfer.groupby("dataset").size().to_dict() == dict.fromkeys(TRANSFER_SETS, 100)
    assert not set(transfer["prompt"]) & set(pool["prompt"])
    assert read_transfer_sets(data / "safety", 100, seed=0).empty
