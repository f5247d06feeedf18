from stackfit.isa.constants cimport *
