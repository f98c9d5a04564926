"""The `mrse` command: one thin file a command."""
