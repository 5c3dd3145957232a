"""`python -m analysis.report`."""

from analysis.report.command import PROGRAM, main
from stability.outputs import run

if __name__ == "__main__":
    run(PROGRAM, main)
