"""The data model of a study: what was planned, what came of it, and what is measured. Imported by every other folder."""
