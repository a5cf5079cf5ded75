"""Where pickles of earlier versions look for classes that have moved. Nothing else imports from here.

The package's search path ends with this directory, so ``mlops_integrations.door`` is found here if a pickle asks.
"""
