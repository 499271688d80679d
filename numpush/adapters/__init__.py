"""numpush under other people's engines: a module for each. Nothing here is imported unasked."""
