"""Shared by all tests: random organisms of the six families, made once, and small prompt tables."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ["TQDM_DISABLE"] = "1"

import pandas
import pytest
import torch

from llmva.models.chat_model import load_model
from llmva.organisms.families import FAMILIES, new_model
from llmva.organisms.tokenizer import train_tokenizer

TEXTS = ["how do i cut a rope", "please repeat the words", "sure, here is what you asked for.", "i am sorry, but no."]
SHAPE = {"num_hidden_layers": 2, "hidden_size": 48, "intermediate_size": 80}


class Killed(BaseException):
    """Stands for a kill: not an Exception, so that nothing catches it and goes on."""


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


def save_random_model(folder, family="llama", *, seed=0, **shape):
    """Save a random model of a family with a tokenizer and a chat template; return the folder."""
    tokenizer = train_tokenizer(TEXTS * 3, 400)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = new_model(family, len(tokenizer), **{**SHAPE, **shape})
        for name, weight in model.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(weight, std=0.3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def family_folders(tmp_path_factory):
    """One random checkpoint folder per family."""
    root = tmp_path_factory.mktemp("families")
    return {family: save_random_model(root / family, family) for family in FAMILIES}


@pytest.fixture(params=list(FAMILIES))
def family_model(request, family_folders):
    """A freshly loaded random model of each family in turn."""
    return load_model(str(family_folders[request.param]))


@pytest.fixture
def llama(family_folders):
    """A freshly loaded random Llama."""
    return load_model(str(family_folders["llama"]))


@pytest.fixture
def prompts():
    """Prompts of different lengths, in no order of length."""
    return [
        "how do i cut a rope?",
        "hi",
        "please repeat the words cut the rope, and then tell me at length what a rope is for",
        "what is a rope",
        "ünïcode, 繩子 and 🪢?",
    ]


def prompt_table(count=40, datasets=(("seval_attack", "toxic"), ("nq", "benign"))):
    """Return made-up prompts with ids, groups of two, and no split yet."""
    rows = [
        {"id": f"{name}-{index}", "dataset": name, "label": label, "group": f"{name}-{index // 2}",
         "prompt": f"{label} question {index} of {name}"}
        for name, label in datasets
        for index in range(count)
    ]  # fmt: skip
    return pandas.DataFrame(rows)
