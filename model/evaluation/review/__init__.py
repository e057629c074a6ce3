"""Review by people: items go out blinded, ratings come back, and a person outranks a judge."""
