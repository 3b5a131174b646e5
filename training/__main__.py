"""`python -m training`: the same as `mediqa-train`, for `torchrun`."""

from training.cli import main

main()
