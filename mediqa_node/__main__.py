"""`python -m mediqa_node`: the command line, and each process of a node."""

import sys

if sys.argv[-2:-1] == ["process"]:
    # pydicom loads it where another program has installed it, to download test files: 10 MB and 30 ms for nothing
    sys.modules["requests"] = None  # type: ignore[assignment]

from mediqa_node.cli import main

if __name__ == "__main__":
    main()
