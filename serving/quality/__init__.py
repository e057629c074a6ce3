"""Quality of a challenger's answers during a rollout: parity with the gate, known answers, text differences, votes."""
