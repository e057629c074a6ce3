"""sluice: from raw text to a served and monitored language model, with evidence at every gate."""
