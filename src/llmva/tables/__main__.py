"""`python -m llmva.tables <item>`."""

from llmva.tables.build import main

main()
