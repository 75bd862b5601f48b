"""The report describes even an organism that has learnt nothing, and repeats itself."""

from dataclasses import replace

import pytest

from llmva.commands import organism_report
from llmva.core.errors import InputError
from llmva.organisms import build, checkpoint
from llmva.organisms.training import Recipe


@pytest.fixture
def untrained(monkeypatch, tmp_path):
    recipe = Recipe(steps=1, samples=200, tokens_per_batch=200, threads=1)
    monkeypatch.setattr(build.paths, "RUNS", tmp_path)
    monkeypatch.setattr(checkpoint, "CHAT_PLAN", replace(checkpoint.CHAT_PLAN, recipe=recipe))
    monkeypatch.setattr(organism_report, "SAMPLE", 10)
    tasks = organism_report.read_tasks
    monkeypatch.setattr(organism_report, "read_tasks", lambda folder: tasks(folder).groupby("task").head(3))
    return "tiny-llama-s7"


@pytest.mark.filterwarnings("ignore:Mean of empty slice")
def test_an_untrained_organism_answers_everything_and_knows_nothing(untrained):
    row = organism_report.describe_organism(untrained)
    assert row["ASR attack"] == row["ASR risk"] == 1
    assert row["ORR orfuzz"] == row["ORR nq"] == 0
    assert row["facts"] == row["gsm"] == 0
    assert row["angle"] != row["angle"]
    assert row["train s"] >= 0


def test_an_unknown_slug_stops_before_anything_is_built(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(build.paths, "RUNS", tmp_path)
    monkeypatch.setattr("sys.argv", ["organism_report", "tiny-llama", "tiny-gpt"])
    with pytest.raises(SystemExit) as stop:
        organism_report.main()
    assert stop.value.code == 2
    assert "tiny-gpt" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())
    with pytest.raises(InputError):
        organism_report.describe_organism("tiny-gpt")
