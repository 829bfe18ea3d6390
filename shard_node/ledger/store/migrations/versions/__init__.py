"""One module a step of the schema, named by its number."""
