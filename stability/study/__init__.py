"""The data model of a study: what was planned, what its trials resulted in, what is measured.

It imports the schema of the configuration (`stability.config`) and no other folder."""
