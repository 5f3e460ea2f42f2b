"""`python -m llmzip`: the program `llmzip` of this interpreter."""

from llmzip.cli import main

if __name__ == "__main__":
    main()
