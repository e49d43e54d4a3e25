"""What users hold: sessions, text, evaluation, on any engine."""
