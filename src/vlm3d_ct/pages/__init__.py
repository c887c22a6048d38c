"""Pages for people: blocks of tables, pictures and galleries in one HTML file, and the look that its charts share."""
