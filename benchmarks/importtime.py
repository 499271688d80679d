"""What `import numpush` costs beside numpy and pandas, in fresh interpreters; and what is downloaded.

Sizes are those of wheel and sdist in dist/: `tests/packaging/wheel.sh` makes them.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from harness import Race, arguments, finish

BASE = "import numpy, pandas"


def main() -> None:
    args = arguments(__doc__)
    race = Race("A fresh interpreter", BASE)
    for name, code in {
        BASE: "import numpy, pandas",
        "and numpush": "import numpy, pandas, numpush",
        "and SArray, SDataFrame": "import numpy, pandas; from numpush import SArray, SDataFrame",
        "import numpush": "import numpush",
        "import pandas": "import pandas",
        "import numpy": "import numpy",
        "import numpy; from numpush import SArray": "import numpy; from numpush import SArray",
    }.items():
        race.add(name, lambda code=code: subprocess.run([sys.executable, "-c", code], check=True))
    race.run(args.rounds)
    finish([race], args.json)
    check = (
        "import sys; from numpush import SArray; SArray([1.0]); assert 'pandas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", check], check=True)
    print("SArray without pandas in use imports no pandas.")
    for path in sorted(Path(__file__).parent.parent.glob("dist/numpush-*")):
        print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
