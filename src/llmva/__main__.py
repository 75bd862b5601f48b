"""`python -m llmva COMMAND`: the console command by another name."""

from llmva.commands.console import main

main()
