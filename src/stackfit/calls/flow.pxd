from stackfit.calls.flow_constants cimport *
from stackfit.isa.constants cimport *
