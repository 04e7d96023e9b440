"""Takes damaged model files apart: 10,000 of them by default, seeded, over .pte, .tflite and .onnx.

    PYTHONPATH=. python benchmarks/fuzz_anatomy.py [--count 10000] [--first 0]

Each must come apart with parts that add up, and like the format's own library reads it where that can, or be refused
with the byte at which reading failed. Anything else ends the run with the seed, which makes the file again.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.size_artifacts import write_artifacts
from tests.size_fuzz import damaged, judged, of_anatomy, reference


def main() -> int:
    """Damage, take apart, print what came out."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--count", type=int, default=10_000, help="damaged files")
    arguments.add_argument("--first", type=int, default=0, help="seed of the first")
    arguments.add_argument("--files", type=Path, help="folder of whole files to damage; converted anew without it")
    options = arguments.parse_args()
    if options.files:
        paths = [path for path in options.files.iterdir() if path.suffix in (".pte", ".tflite", ".onnx")]
        files = {path.name: path.read_bytes() for path in paths}
    else:
        with tempfile.TemporaryDirectory(prefix="phonefit-") as folder:
            files = write_artifacts(Path(folder))
    outcomes: Counter[str] = Counter()
    slowest, start = (0.0, 0), time.perf_counter()
    for seed in range(options.first, options.first + options.count):
        suffix, content = damaged(files, seed)
        before = time.perf_counter()
        try:
            found = judged(suffix, content)
        except Exception:
            print(f"seed {seed} ({suffix}):", file=sys.stderr)
            raise
        slowest = max(slowest, (time.perf_counter() - before, seed))
        outcomes[f"{suffix} {'taken apart' if found else 'refused'}"] += 1
        expected = reference(suffix, content) if found else None
        if found and expected is not None:
            outcomes[f"{suffix} compared with its library"] += 1
            if of_anatomy(found) != expected:
                print(f"seed {seed} ({suffix}): {of_anatomy(found)}, its library reads {expected}", file=sys.stderr)
                return 1
    for name, count in sorted(outcomes.items()):
        print(f"{name:36} {count:6,}")
    print(
        f"{options.count:,} files in {time.perf_counter() - start:.0f} s; slowest {slowest[0]:.3f} s, seed {slowest[1]}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
