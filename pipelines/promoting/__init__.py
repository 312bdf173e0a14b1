"""From a run to a registered file and to the champion: publishing, samples to judge on, gates, the card."""
