"""From a suite file to cells: reading, the schema, what the command line overrides, and expansion."""
