from stackfit.pages.allocator_constants cimport *
from stackfit.pages.zone cimport Zone
