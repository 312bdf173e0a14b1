"""Looking at data sets, measured files and what networks make of them."""
