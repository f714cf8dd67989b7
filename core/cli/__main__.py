"""``python -m core.cli``: the same as ``lockstepd``."""

from core.cli import main

main()
