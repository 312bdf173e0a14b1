"""How good models are: on every perturbation set, on fresh states, against another file, sample by sample."""
