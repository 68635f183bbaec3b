"""python -m gpucnn"""

from gpucnn.cli import main

main()
