"""``python -m mlops_integrations``: the command line, whatever lies in the working directory.

``-m`` puts the working directory first on the search path, where a user's ``requests.py`` or ``keras.py`` may lie.
So it is taken off before anything else is imported, unless this package itself lies there.
"""

import os
import sys


def _leave_out_working_directory() -> None:
    first = os.path.realpath(sys.path[0] or os.curdir) if sys.path else ""
    try:
        here = os.path.realpath(os.getcwd())  # noqa: PTH109 - pathlib might come from the working directory
    except OSError:  # it was deleted: nothing can be imported from it
        return
    home = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    if first == here != home:
        del sys.path[0]


if __name__ == "__main__":
    _leave_out_working_directory()
    from mlops_integrations.cli.arguments import main

    sys.exit(main())
