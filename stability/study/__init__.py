"""The data model of a study: what was planned, what came of it, what is measured. Every other folder may import it."""
