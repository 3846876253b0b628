"""A stranger's package: methods that dbbench knows nothing of and runs by dotted path."""
