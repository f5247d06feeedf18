# Constants for Cython: .py modules can cimport only through their .pxd.
from stackfit.image.dwarf_constants cimport *
