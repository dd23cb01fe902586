# SPDX-License-Identifier: Apache-2.0
"""All benchmarks, as root: ``python bench/run.py``."""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    """Print every figure; nothing is judged."""
    # The corpus and the oracle are the tests' own.
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from bench import status

    # First, while this process is small: no child is said to have had less memory than it.
    status.main()
    print()

    from bench import (
        analysis,
        context,
        counters,
        dispatch,
        forwarding,
        load,
        monitor,
        queues,
        replace,
    )

    load.main()
    print()
    analysis.main()
    print()
    replace.main()
    print()
    queues.main()
    print()
    counters.main()
    print()
    dispatch.main()
    print()
    context.main()
    print()
    monitor.main()
    print()
    forwarding.main()


if __name__ == "__main__":
    main()
