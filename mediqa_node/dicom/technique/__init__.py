"""Physical acquisition parameters from headers: tube charge (mAs), field strength (T) and covariates."""
