"""Tools over an application package that need no server and no Java: check it, size it, build its variants."""
