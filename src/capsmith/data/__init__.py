"""Photos with captions, as data sets publish them: reading, checking, encoding once, fetching."""
