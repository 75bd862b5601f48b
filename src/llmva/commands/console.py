"""The console command: `llmva align --model FOLDER`, or `python -m llmva align ...`."""

import importlib
import sys
from collections.abc import Sequence

from llmva import __version__
from llmva.core.errors import InputError, command

# By name: the module whose `main` is called, imported only then, and what it does.
COMMANDS = {
    "align": ("llmva.commands.align", "align a model of your own: edits, adapter, report"),
    "plan": ("llmva.commands.plan", "say what a study, or aligning your model, will cost"),
    "doctor": ("llmva.commands.doctor", "look at this machine, and at a model, before you run"),
    "compare": ("llmva.commands.compare", "talk to the original and the aligned model side by side"),
    "standard": ("llmva.commands.standard_tasks", "GLUE and GSM8K by lm-evaluation-harness, before and after"),
    "steer": ("llmva.commands.steer", "find a direction that brings a trait back at run time"),
    "data": ("llmva.prompts.public.__main__", "make a study's data folder from the public sets"),
    "organisms": ("llmva.organisms.__main__", "train the tiny models of the studies"),
    "notebooks": ("llmva.commands.notebooks", "run numbered notebooks for one model"),
    "tables": ("llmva.paper.tables.build", "build tables from results/"),
    "figures": ("llmva.paper.figures.drawing", "draw figures from results/"),
}


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Run one of the commands, with the rest of the arguments."""
    name, *rest = (sys.argv[1:] if arguments is None else list(arguments)) or ["--help"]
    if name in ("-h", "--help", "help"):
        print(describe())
        return
    if name == "--version":
        print(f"llmva {__version__}")
        return
    if name not in COMMANDS:
        raise InputError(f"{name}: no such command; choose {', '.join(COMMANDS)} (`llmva --help` says what they do)")
    sys.argv = [f"llmva {name}", *rest]
    importlib.import_module(COMMANDS[name][0]).main()


def describe() -> str:
    """Return what `llmva --help` prints."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {what}" for name, (_, what) in COMMANDS.items()]
    head = "Make a chat model's willingness to answer follow its own judgement of safety."
    tail = "`llmva align --help` shows a command's options. In Python: import llmva"
    return "\n".join(["usage: llmva COMMAND [options]", "", head, "", *lines, "", tail])


if __name__ == "__main__":
    main()
