"""From a data set to a network with bounds and novelty: what train, tune, demo and reproduce share."""
