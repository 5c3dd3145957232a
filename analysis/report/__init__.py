"""The report: what the analysis knows of some studies as one HTML page that needs no network.

`content.py` gathers numbers and words, `plots/` describes the figures for plotly.js, `html.py` makes the page of both
from the files in `page/`. Every number comes from the modules that the other commands use.
"""
