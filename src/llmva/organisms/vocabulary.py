"""The words of the generated corpus, as `vocabulary.yaml` lists them: `words.nouns` and so on, in the file's order."""

from pathlib import Path
from types import SimpleNamespace

import yaml

words = SimpleNamespace(**yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")))
