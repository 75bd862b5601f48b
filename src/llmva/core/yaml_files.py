"""Parameter files in YAML, read so that a slip is seen: no key twice, no aliases, nothing of endless size."""

from pathlib import Path

import yaml

from llmva.core.errors import InputError, first_line

# Real ones have a few thousand.
MAX_LETTERS = 100_000


def read_yaml(path: Path) -> dict:
    """Return what a parameter file says, or raise an `InputError` that names it."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; name a file of parameters in YAML")
    try:
        text = path.read_text(encoding="utf-8")
        if len(text) > MAX_LETTERS:
            raise InputError(f"{path}: has {len(text):,} letters; a file of parameters has fewer than {MAX_LETTERS:,}")
        values = yaml.load(text, _StrictLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable as YAML ({first_line(error)}); fix that line") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: no parameters in it; copy tiny-llama.yaml and change its values")
    return values


class _StrictLoader(yaml.SafeLoader):
    """A safe loader that takes no aliases, which can grow without end, and no key twice, of which one would be lost."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError(f"an alias in line {self.peek_event().start_mark.line + 1}; write the value out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise yaml.YAMLError(f"{twice[0]!r} stands twice from line {node.start_mark.line + 1} on")
        return super().construct_mapping(node, deep)
