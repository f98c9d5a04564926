"""Commands that write into Vespa, and the one that checks what they wrote."""
