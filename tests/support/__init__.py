"""Real parts for the trials: processes, peers, wires and images. Imported as `support.…`."""

import os

# Before numpy and torch: threads that wait for each other spin, and take the cores from the tests beside them.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
