"""numpush under other people's engines: a package for each. Nothing here is imported unasked."""
