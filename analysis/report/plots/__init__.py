"""The figures of the page, as data for plotly.js: a file each."""
