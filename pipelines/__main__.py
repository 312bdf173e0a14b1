"""``python -m pipelines COMMAND`` is ``stm COMMAND``."""

from pipelines.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
