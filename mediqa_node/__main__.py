"""`python -m mediqa_node`: the command line."""

from mediqa_node.cli import main

if __name__ == "__main__":
    main()
