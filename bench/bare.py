"""The median time of our predictor for one image, without any server. Arguments: bundle, image, calls."""

import sys
import time
from pathlib import Path
from statistics import median

from convoy.bundles.predictor import Predictor

if __name__ == "__main__":
    predictor, encoded = Predictor(Path(sys.argv[1])), Path(sys.argv[2]).read_bytes()
    took_ms = []
    for _ in range(int(sys.argv[3])):
        began_s = time.perf_counter()
        predictor.probabilities([predictor.prepare(encoded).array])
        took_ms.append((time.perf_counter() - began_s) * 1000)
    print(median(took_ms))
