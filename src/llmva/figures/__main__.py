"""`python -m llmva.figures <item>`."""

from llmva.figures.drawing import main

main()
