"""Loggers: each listens to the events of a study's trials and writes them somewhere. One file per logger."""
