"""Speed, measured by hand; results with machine and date in docs/benchmarks.md."""
