# Read by Cython only: the numbers of the uncompiled module as C constants.
from stackfit.machine.interrupts_constants cimport *
