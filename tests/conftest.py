"""Settings for all tests: one thread for each of the parallel test processes, or they would wait for each other."""

import os

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")  # before torch is imported; worker processes inherit it
os.environ.setdefault("COLUMNS", "80")  # width of tables
