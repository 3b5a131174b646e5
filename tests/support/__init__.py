"""Real parts for the trials: processes, peers, wires and images. Imported as `support.…`."""

import os

# Set before torch is imported: OpenMP threads that wait would otherwise spin and slow down the tests beside them. The
# number of threads, also of OpenBLAS, is left alone because it changes the last bits of a score.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
