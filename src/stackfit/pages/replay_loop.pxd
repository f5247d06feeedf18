# Read by Cython only: the numbers of the uncompiled module as C constants.
from stackfit.pages.replay_constants cimport *
