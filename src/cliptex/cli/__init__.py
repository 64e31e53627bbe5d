"""The command line: parse, call one function, print where the result lies.

Everything heavy is imported inside the commands, so that `cliptex --help` answers at once.
"""

from cliptex.cli.app import main as main
