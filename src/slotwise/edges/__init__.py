"""Real effects: one folder per kind of effect, one third-party library per file. No decisions here."""
