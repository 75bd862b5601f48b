"""Attacks in wrappers that no method has seen, and a method on top of a weight edit."""

import pandas
import pytest
import torch
from test_alignment import weights_of
from test_steering import replies_of, training_of

from llmva.core.vocabulary import ATTACK_SETS, SAFETY_SETS, TRANSFER_SETS
from llmva.edits.edited_model import EditedModel
from llmva.edits.log import EditLog, SublayerEdit
from llmva.organisms import corpus
from llmva.prompts.pools import read_attack_sets
from llmva.steering.runtime.edited import OnEditedModel
from llmva.steering.runtime.two_sided import TwoSided


@pytest.fixture(scope="module")
def attacks():
    return corpus.draw_attacks(seed=3)


def test_attacks_are_labelled_and_unique(attacks):
    assert attacks["id"].is_unique and attacks["prompt"].is_unique
    assert attacks.groupby("dataset")["label"].unique().map(list).to_dict() == {
        name: [label] for name, label in ATTACK_SETS.items()
    }
    assert attacks["dataset"].value_counts().eq(corpus.ATTACK_PROMPTS).all()


def test_no_set_of_a_study_and_no_training_holds_an_attack(attacks):
    known = {item.prompt for name in (*SAFETY_SETS, *TRANSFER_SETS, *corpus.WRAPPED_SETS)
             for item in corpus.prompt_space(name)}  # fmt: skip
    assert not known & set(attacks["prompt"])


def test_what_is_wrapped_is_refused_as_it_is_where_it_is_toxic_and_answered_where_it_is_not(attacks):
    answered = {item.prompt: item.answered for name in ("seval_risk", "nq") for item in corpus.prompt_space(name)}
    for label, group in zip(attacks["label"], attacks["group"], strict=True):
        assert answered[group] == (label == "benign")


def test_a_data_folder_may_bring_attacks_or_none(tmp_path):
    assert read_attack_sets(tmp_path).empty
    (tmp_path / "attacks").mkdir()
    pandas.DataFrame({"prompt": ["a?", "b?"], "label": "toxic"}).to_csv(
        tmp_path / "attacks" / "doubled.csv", index=False
    )
    rows = read_attack_sets(tmp_path)
    assert rows["dataset"].tolist() == ["doubled"] * 2 and rows["label"].eq("toxic").all()


# On an edited model


def edit_of(llama):
    generator = torch.Generator().manual_seed(0)
    name = "mlp.01"
    module = llama.writers[name]
    output, inner = (torch.randn(size, generator=generator).numpy() for size in module.weight.shape)
    return EditLog().appended([SublayerEdit(name, output, inner * 0.05, 0.0, output, output, 1.0)])


def test_a_method_on_an_edited_model_is_fitted_to_what_that_one_says(llama, prompts):
    log, seen = edit_of(llama), []
    training = training_of(llama, prompts)

    def examine(rows):
        assert "response" not in rows and "verdict" not in rows
        seen.append(replies_of(llama, rows["prompt"].tolist()))
        return rows.assign(response=seen[-1], verdict=["answered", "refused", "answered", "refused", "refused"])

    method = OnEditedModel("both", TwoSided(), log, examine)
    before, plain = weights_of(llama), replies_of(llama, prompts)
    method.fit(training)
    assert method.outcome == "fitted" and seen[0] != plain
    alone, *others = method.search_space(5)
    with method.applied(llama, alone):
        assert replies_of(llama, prompts) == seen[0]
    with method.applied(llama, {**others[0], "strength": 24.0}):
        replies_of(llama, prompts)
    assert all(torch.equal(weight, before[name]) for name, weight in llama.model.state_dict().items())
    assert replies_of(llama, prompts) == plain
    with EditedModel(llama.writers) as edited:
        edited.apply(log)
        assert replies_of(llama, prompts) == seen[0]
