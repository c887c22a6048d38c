"""CT volumes: reading, checking, and preparing them. No torch here."""
