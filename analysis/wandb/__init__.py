"""W&B after the fact: a study's runs from its records, and its records from runs. One module per subcommand."""
