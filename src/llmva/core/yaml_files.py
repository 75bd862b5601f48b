"""Parameter files in YAML, read so that a slip is seen: no key twice, no aliases, no number in disguise."""

import re
from pathlib import Path

import yaml

from llmva.core.errors import InputError, first_line

# Real ones have a few thousand.
MAX_LETTERS = 100_000
# What people mean by digits. YAML 1.1 also reads 012 as 10, 1:30 as 90 and 1_0 as 10.
DECIMAL = {
    "tag:yaml.org,2002:int": re.compile(r"[-+]?(0|[1-9][0-9]*)"),
    "tag:yaml.org,2002:float": re.compile(r"[-+]?([0-9]*\.[0-9]*([eE][-+][0-9]+)?|\.(?i:inf|nan))"),
}


def read_yaml(path: Path) -> dict:
    """Return what a parameter file says, or raise an `InputError` that names it."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; name a file of parameters in YAML")
    try:
        text = path.read_text(encoding="utf-8")
        if len(text) > MAX_LETTERS:
            raise InputError(f"{path}: has {len(text):,} letters; a file of parameters has fewer than {MAX_LETTERS:,}")
        values = yaml.load(text, _StrictLoader)
    except _UnclearNumberError as error:
        raise InputError(f"{path}: {error}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable as YAML ({first_line(error)}); fix that line") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: no parameters in it; copy tiny-llama.yaml and change its values")
    return values


class _UnclearNumberError(Exception):
    """A number that YAML reads otherwise than people do: names the field, the line and the fix."""


class _StrictLoader(yaml.SafeLoader):
    """A safe loader that takes no aliases, which can grow without end, and no key twice, of which one would be lost.

    Numbers are decimal.
    """

    def get_single_node(self):
        node = super().get_single_node()
        self._require_decimal(node, ())
        return node

    def _require_decimal(self, node, place):
        match node:
            case yaml.MappingNode():
                for key, value in node.value:
                    self._require_decimal(key, place)
                    self._require_decimal(value, (*place, str(key.value)))
            case yaml.SequenceNode():
                for number, value in enumerate(node.value):
                    self._require_decimal(value, (*place, str(number)))
            case yaml.ScalarNode() if (known := DECIMAL.get(node.tag)) and not known.fullmatch(node.value):
                field = ".".join(place) or f"line {node.start_mark.line + 1}"
                value = self.construct_object(node)
                fix = f"write {value!r} if that is meant, or the number in decimal digits alone"
                raise _UnclearNumberError(f"{field}: is {node.value}, which YAML reads as {value!r}; {fix}")

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError(f"an alias in line {self.peek_event().start_mark.line + 1}; write the value out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise yaml.YAMLError(f"{twice[0]!r} stands twice from line {node.start_mark.line + 1} on")
        return super().construct_mapping(node, deep)
