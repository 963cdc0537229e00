"""Public data to a ready project folder: `fetch.fetch_project` is the one way in; the command line calls it."""
