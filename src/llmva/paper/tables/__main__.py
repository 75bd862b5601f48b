"""`python -m llmva.paper.tables <item>`."""

from llmva.paper.tables.build import main

main()
