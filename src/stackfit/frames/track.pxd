from stackfit.frames.constants cimport *
from stackfit.isa.constants cimport *
