"""Write the golden files of file://, version 1, as docs/stores.md describes.

Run it when the version of the format changes, and never else: old files are what new code must read.
"""

from __future__ import annotations

from pathlib import Path

from write_wire import objects

FOLDER = Path(__file__).parent / "npush"


def main() -> None:
    from numpush import stores

    for name, (obj, options) in objects().items():
        if "chunk" not in options:
            with stores.open(FOLDER, checksum=options.get("checksum", False)) as store:
                store.put(name, obj)


if __name__ == "__main__":
    main()
