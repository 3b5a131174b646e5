"""Real parts for the trials: processes, peers, wires and images. Imported as `support.…`."""

import os

# Before torch: threads that wait for each other would spin, and take the cores from the tests beside them. Their number
# stays as it is in use, that of OpenBLAS too: it decides the last bits of a score.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
