"""A search by several processes: its space, its trials, its beginning from an earlier one, its report."""
