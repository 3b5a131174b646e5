"""Real parts for the trials: processes, peers, wires and images. Imported as `support.…`."""

import gc
import os

# Set before torch is imported: OpenMP threads that wait would otherwise spin and slow down the tests beside them. The
# number of threads, also of OpenBLAS, is left alone because it changes the last bits of a score.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# A suite keeps millions of objects of torch and pydicom alive; looking through them again and again for rings of
# garbage took a sixth of its processor time. `conftest` sets those that collection made aside.
gc.set_threshold(100_000, 20, 20)
