"""`python -m llmva.paper.figures <item>`."""

from llmva.paper.figures.drawing import main

main()
