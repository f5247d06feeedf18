"""Effects to the stack depth at every instruction."""
