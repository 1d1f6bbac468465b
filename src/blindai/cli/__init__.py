"""The command line: one function per verb. Data goes to stdout, everything else to stderr."""
