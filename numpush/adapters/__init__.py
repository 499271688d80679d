"""Shared objects in other people's engines: a module for each, to be imported by name."""
